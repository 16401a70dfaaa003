import { createId } from "@stillframe/domain/ids"
import type { Tags } from "@stillframe/domain/text/tags"
import { sql, type Selectable } from "kysely"
import { clock, clockPlus } from "../client.ts"
import { positionAt, readPage, type Page, type PageRequest } from "../page.ts"
import type { Database, WebhooksTable } from "../schema.ts"

/**
 * Never carries the secret: that goes from its encrypted column to the signature, and to the caller who made
 * it.
 */
export type WebhookRow = Omit<Selectable<WebhooksTable>, "secret" | "previous_secret">

export interface NewWebhook {
  readonly url: string
  readonly description?: string | undefined
  readonly eventTypes?: readonly string[] | undefined
  readonly instanceIds?: readonly string[] | undefined
  readonly tags?: Tags | undefined
  readonly enabled?: boolean | undefined
  /** Encrypted. */
  readonly secret: Buffer
}

/** The columns that callers may see. */
export const webhookColumns = [
  "id",
  "url",
  "description",
  "event_types",
  "instance_ids",
  "tags",
  "enabled",
  "failing_since",
  "disabled_reason",
  // An expired secret is not shown.
  sql<Date | null>`case when previous_secret_until > ${clock} then previous_secret_until end`.as(
    "previous_secret_until",
  ),
  "created_at",
] as const

export async function createWebhook(db: Database, webhook: NewWebhook): Promise<WebhookRow> {
  return db
    .insertInto("webhooks")
    .values({
      id: createId(),
      url: webhook.url,
      description: webhook.description ?? null,
      event_types: JSON.stringify(webhook.eventTypes ?? []),
      instance_ids: JSON.stringify(webhook.instanceIds ?? []),
      tags: JSON.stringify(webhook.tags ?? {}),
      enabled: webhook.enabled ?? true,
      secret: webhook.secret,
    })
    .returning(webhookColumns)
    .executeTakeFirstOrThrow()
}

export async function listWebhooks(db: Database, page: PageRequest): Promise<Page<WebhookRow>> {
  return readPage(db.selectFrom("webhooks").select(webhookColumns).select(positionAt.as("position_at")), page)
}

export async function findWebhook(db: Database, id: string): Promise<WebhookRow | undefined> {
  return db.selectFrom("webhooks").select(webhookColumns).where("id", "=", id).executeTakeFirst()
}

/** Locks the row against changes, for work that needs it as it is. */
export async function lockWebhook(tx: Database, id: string): Promise<WebhookRow | undefined> {
  // No key: its deliveries point to it, and are made all the time.
  return tx
    .selectFrom("webhooks")
    .select(webhookColumns)
    .where("id", "=", id)
    .forNoKeyUpdate()
    .executeTakeFirst()
}

/** Absent members stay unchanged. */
export interface WebhookChanges extends Omit<NewWebhook, "url" | "description" | "secret"> {
  readonly url?: string | undefined
  /** null: none any more. */
  readonly description?: string | null | undefined
}

/**
 * As it is afterwards; undefined when there is none. Enabling one forgets why it was disabled, and since when
 * it had failed; so does another URL, as a new receiver is not to blame for the one before.
 */
export async function updateWebhook(
  db: Database,
  id: string,
  { url, description, eventTypes, instanceIds, tags, enabled }: WebhookChanges,
): Promise<WebhookRow | undefined> {
  return db
    .updateTable("webhooks")
    .set({
      ...(url !== undefined && { url }),
      ...(description !== undefined && { description }),
      ...(eventTypes !== undefined && { event_types: JSON.stringify(eventTypes) }),
      ...(instanceIds !== undefined && { instance_ids: JSON.stringify(instanceIds) }),
      ...(tags !== undefined && { tags: JSON.stringify(tags) }),
      ...(enabled !== undefined && { enabled }),
      ...(enabled === true && { disabled_reason: null }),
      // In a SET, names mean what was before.
      failing_since: sql<Date | null>`case
        when url = ${url ?? sql.ref("url")} and (enabled or not ${enabled ?? false}::boolean) then failing_since end`,
    })
    .where("id", "=", id)
    .returning(webhookColumns)
    .executeTakeFirst()
}

/** The secret that signs now, encrypted; undefined when there is no such webhook. */
export async function findSealedSecret(db: Database, id: string): Promise<Buffer | undefined> {
  const row = await db.selectFrom("webhooks").select("secret").where("id", "=", id).executeTakeFirst()
  return row?.secret
}

/**
 * Gives a webhook another secret, encrypted; undefined when there is none. The one before signs too for
 * `graceMs`, and whatever came before that one no longer does.
 */
export async function rotateSecret(
  db: Database,
  id: string,
  { secret, graceMs }: { secret: Buffer; graceMs: number },
): Promise<WebhookRow | undefined> {
  const previous =
    graceMs === 0
      ? { previous_secret: null, previous_secret_until: null }
      : { previous_secret: sql<Buffer>`secret`, previous_secret_until: clockPlus(graceMs) }
  return db
    .updateTable("webhooks")
    .set({ secret, ...previous })
    .where("id", "=", id)
    .returning(webhookColumns)
    .executeTakeFirst()
}

/** False when there was none. Its deliveries go with it, so no attempt starts afterwards. */
export async function deleteWebhook(db: Database, id: string): Promise<boolean> {
  const { numDeletedRows } = await db.deleteFrom("webhooks").where("id", "=", id).executeTakeFirst()
  return numDeletedRows === 1n
}
