import { randomBytes } from "node:crypto"
import type { Database } from "@stillframe/db/schema"
import type { Made } from "@stillframe/db/snapshots/idempotency"
import { findSealedSecret, findWebhook, type WebhookRow } from "@stillframe/db/webhooks/webhooks"
import { webhookResource, type WebhookResource } from "@stillframe/domain/webhook"
import { openSecret, sealSecret } from "@stillframe/runtime/secrets"
import type { ApiDeps } from "../http/deps.ts"
import { once } from "../http/once.ts"
import type { Answer, Call } from "../http/route.ts"
import { shownTo } from "./shown.ts"

type Caller = Pick<Call<unknown, unknown>, "allows" | "identity">

const secretBytes = 32

/**
 * Makes a secret, has `make` keep it, encrypted, with a webhook, and shows both: nothing but this answer, and
 * its repetition to the same caller, ever shows it.
 */
export async function makeWithSecret(
  deps: ApiDeps,
  call: Caller,
  make: (tx: Database, sealed: Buffer) => Promise<WebhookRow>,
): Promise<Omit<Answer, "status">> {
  // The form of Standard Webhooks.
  const secret = `whsec_${randomBytes(secretBytes).toString("base64")}`
  const sealed = sealSecret(deps.secretsKey, secret)
  const { body, made } = await once(deps, call.identity, async (tx) => {
    const row = await make(tx, sealed)
    const made = { webhookId: row.id, sealedSecret: sealed.toString("base64") }
    return { made, body: webhookResource(row) }
  })
  return { body: { ...shownTo(call, body), secret }, headers: { Location: `/webhooks/${made.webhookId}` } }
}

/**
 * To the caller who made it, the secret too: the first answer may never have arrived. It is the one that
 * signs now, which a rotation may have replaced; of a webhook that is gone, the one that was made.
 */
export async function showSecretAgain(
  { db, secretsKey }: ApiDeps,
  call: Caller,
  { made: { webhookId = "", sealedSecret }, body }: Made,
): Promise<Omit<Answer, "status">> {
  const row = await findWebhook(db, webhookId)
  const resource = shownTo(call, row === undefined ? (body as WebhookResource) : webhookResource(row))
  // A key that was kept before secrets were kept with it; it is gone in a day.
  if (sealedSecret === undefined) return { body: resource }
  const sealed = (await findSealedSecret(db, webhookId)) ?? Buffer.from(sealedSecret, "base64")
  return { body: { ...resource, secret: openSecret(secretsKey, sealed) } }
}
