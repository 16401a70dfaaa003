import type { OwnedDatabase } from "@stillframe/db/client"
import { appendSnapshotEvent, numberEvents } from "@stillframe/db/events/events"
import { numberAndClaim, type ClaimedDelivery } from "@stillframe/db/webhooks/deliveries"
import { createWebhook, type NewWebhook } from "@stillframe/db/webhooks/webhooks"
import { sealSecret } from "@stillframe/runtime/secrets"
import type { ReceivedRequest } from "@stillframe/testing/receiver"
import { Webhook } from "standardwebhooks"
import { snapshotRecord } from "../events/records.ts"
import { secretsKey } from "./dispatchers.ts"

export const secret = `whsec_${Buffer.from("thirty-two bytes of test secret!").toString("base64")}`

export function webhookTo(db: OwnedDatabase, url: string, changes: Partial<NewWebhook> = {}) {
  return createWebhook(db, { url, secret: sealSecret(secretsKey, secret), ...changes })
}

/** The event, if the request has a signature of the secret's over its exact bytes; throws else. */
export function verified(request: ReceivedRequest, by = secret): unknown {
  return new Webhook(by).verify(request.body, request.headers as Record<string, string>)
}

/** Events that are numbered, so their deliveries are there before a dispatcher looks. */
export async function appendEvents(db: OwnedDatabase, count: number): Promise<void> {
  for (let i = 0; i < count; i++) await appendSnapshotEvent(db, "snapshot.completed", snapshotRecord())
  await numberEvents(db)
}

export async function claimDeliveries(db: OwnedDatabase, room: number): Promise<readonly ClaimedDelivery[]> {
  const { deliveries } = await numberAndClaim(db, room)
  return deliveries
}

/** The one delivery of the test, as its row shows it. */
export function delivery(db: OwnedDatabase) {
  return db
    .selectFrom("deliveries")
    .select(["state", "attempt", "response_status", "error"])
    .executeTakeFirst()
}

/** What attempts came to, oldest first. */
export function attempts(db: OwnedDatabase) {
  return db
    .selectFrom("delivery_attempts")
    .select(["delivery_id", "attempted_at", "duration_ms", "response_status", "response_body", "error"])
    .orderBy("id")
    .execute()
}
