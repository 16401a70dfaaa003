import { StillframeError } from "@stillframe/domain/errors"
import type { InstanceState, LostContact } from "@stillframe/domain/instance"
import { nameLengthMax, namePattern } from "@stillframe/domain/text/names"
import type { Tags } from "@stillframe/domain/text/tags"
import { sql } from "kysely"
import { prepared } from "../connection/prepared.ts"
import { hostContact, lostContact, shownState } from "../hosts/contact.ts"
import { positionAt, readPage, type Page, type PageRequest } from "../page.ts"
import type { Database } from "../schema.ts"
import type { InstanceRow } from "./instances.ts"

const columns = [
  "id",
  "name",
  "image",
  "hypervisor",
  "host",
  "state",
  "state_error",
  "restorable_reason",
  "importing",
  "generation",
  "pid",
  "launch",
  "attached",
  "vcpus",
  "memory_mib",
  "tags",
  "snapshot_policy",
  "source_snapshot_id",
  "standby_payload",
  "exit_code",
  "exit_message",
  "created_at",
  "started_at",
  "stopped_at",
  "deleted_at",
  "forgotten_at",
] as const

/** An instance as callers see it: with what is known of its host's life. */
export type ShownInstance = InstanceRow & { readonly lost: LostContact | null }

/** Its `pool` is that of its host; null for a host that the database does not know. */
export type ResolvedInstance = ShownInstance & { readonly pool: string | null }

/**
 * By id, else by name, else by a prefix of the id that fits one instance only. Throws `not_found` or
 * `ambiguous`.
 */
export async function resolveInstance(db: Database, key: string): Promise<ResolvedInstance> {
  // The database refuses some characters, so only names and ids reach it.
  if (key.length > nameLengthMax || !namePattern.test(key))
    throw new StillframeError("not_found", "resource not found")
  const living = db
    .selectFrom("instances")
    .leftJoin(hostContact, "contact.contact_name", "instances.host")
    .select(columns)
    .select(["contact.pool", lostContact.as("lost")])
    .where("deleted_at", "is", null)
  const exact = await living
    .modifyFront(prepared("resolve_instance"))
    .where((row) => row.or([row("instances.id", "=", key), row("instances.name", "=", key)]))
    .limit(2)
    .execute()
  const found = exact.find((row) => row.id === key) ?? exact[0]
  if (found !== undefined) return found
  const byPrefix = prefixPattern.test(key)
    ? await living.where("instances.id", "like", `${key}%`).limit(2).execute()
    : []
  if (byPrefix.length > 1) throw new StillframeError("ambiguous", "multiple resources match, use full ID")
  if (byPrefix[0] === undefined) throw new StillframeError("not_found", "resource not found")
  return byPrefix[0]
}

const prefixPattern = /^[a-z][a-z0-9]{0,23}$/

/** By its exact id; undefined when it was deleted. */
export async function findShownInstance(db: Database, id: string): Promise<ShownInstance | undefined> {
  return db
    .selectFrom("instances")
    .leftJoin(hostContact, "contact.contact_name", "instances.host")
    .select(columns)
    .select(lostContact.as("lost"))
    .where("id", "=", id)
    .where("deleted_at", "is", null)
    .executeTakeFirst()
}

export interface InstanceFilter {
  /** As it is shown. */
  readonly state?: InstanceState | undefined
  readonly name?: string | undefined
  readonly tags?: Tags | undefined
}

export async function listInstances(
  db: Database,
  filter: InstanceFilter,
  page: PageRequest,
): Promise<Page<ShownInstance>> {
  let query = db
    .selectFrom("instances")
    .leftJoin(hostContact, "contact.contact_name", "instances.host")
    .selectAll("instances")
    .select([lostContact.as("lost"), positionAt.as("position_at")])
    .where("deleted_at", "is", null)
  if (filter.state !== undefined) query = query.where(shownState, "=", filter.state)
  if (filter.name !== undefined) query = query.where("name", "=", filter.name)
  if (filter.tags !== undefined)
    query = query.where(sql<boolean>`tags @> ${JSON.stringify(filter.tags)}::jsonb`)
  return readPage(query, page)
}
