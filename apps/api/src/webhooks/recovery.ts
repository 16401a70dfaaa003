import { now } from "@stillframe/db/client"
import { readEventHead } from "@stillframe/db/events/head"
import { redeliver, sequencesWithin, type Redelivery } from "@stillframe/db/webhooks/redeliver"
import { findWebhook } from "@stillframe/db/webhooks/webhooks"
import { StillframeError } from "@stillframe/domain/errors"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { timeSchema } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { problem } from "../http/problem.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { eventsRemovedSchema } from "../openapi/resources.ts"
import { redeliveredSchema } from "./delivery-schemas.ts"
import { webhookDisabled, webhookIdOf, webhookNotFound } from "./id.ts"

const recoverSchema = z
  .object({
    since: timeSchema.describe("The beginning of the time, included."),
    until: timeSchema.optional().describe("The end of the time, not included. Defaults to now."),
  })
  .meta({ id: "RecoverWebhookRequest", description: "The time whose events were missed." })

const replaySchema = z
  .object({
    from_sequence: z.int().min(1).describe("The sequence of the first event to send."),
    to_sequence: z.int().min(1).describe("The sequence of the last event to send."),
  })
  .meta({ id: "ReplayWebhookRequest", description: "The range of events to send again." })

/** Sends events again that a receiver has missed or wants once more. */
export function webhookRecoveryRoutes(deps: ApiDeps): Route[] {
  const replay: Route["replay"] = async (_call, { body }) => ({ status: 202, body })
  return [
    route({
      method: "post",
      path: "/webhooks/:id/recover",
      operationId: "recoverWebhook",
      summary: "Send the events that a webhook has missed",
      answers: { 202: redeliveredSchema },
      scope: "webhook:write",
      body: recoverSchema,
      handle: (call) => recover(deps, call),
      replay,
    }),
    route({
      method: "post",
      path: "/webhooks/:id/replay",
      operationId: "replayWebhook",
      summary: "Send a range of events again",
      answers: { 202: redeliveredSchema, 410: eventsRemovedSchema },
      scope: "webhook:write",
      body: replaySchema,
      handle: (call) => replayRange(deps, call),
      replay,
    }),
  ]
}

async function recover(deps: ApiDeps, call: Call<unknown, z.output<typeof recoverSchema>>): Promise<Answer> {
  const webhookId = await enabledWebhook(deps, call)
  const { since, until } = call.body
  const range = {
    since: new Date(since),
    until: until === undefined ? await now(deps.db) : new Date(until),
  }
  if (range.since >= range.until)
    throw new StillframeError("invalid_request", "`since` must be in the past, and before `until`")
  const { sequence: head } = await readEventHead(deps.db)
  // Without any event, nothing is left to be looked at.
  const sequences = (await sequencesWithin(deps.db, range)) ?? { from: head + 1, to: head }
  return carryOut(deps, call, { webhookId, ...sequences, what: "missed", time: range })
}

async function replayRange(
  deps: ApiDeps,
  call: Call<unknown, z.output<typeof replaySchema>>,
): Promise<Answer> {
  const webhookId = await enabledWebhook(deps, call)
  const { from_sequence: from, to_sequence: to } = call.body
  if (from > to)
    throw new StillframeError("invalid_request", "`from_sequence` must not be larger than `to_sequence`")
  const { sequence: head, oldest } = await readEventHead(deps.db)
  if (from < oldest) return tooLate(oldest)
  return carryOut(deps, call, { webhookId, from, to: Math.min(to, head), what: "all" })
}

/**
 * The key is kept last: the work is many transactions, and to repeat what a crash has cut off harms nobody.
 */
async function carryOut(
  deps: ApiDeps,
  { identity, signal }: Call<unknown, unknown>,
  redelivery: Redelivery,
): Promise<Answer> {
  const { outcome, deliveries, lastSequence } = await redeliver(deps.db, redelivery, {
    signal: AbortSignal.any([signal, deps.stopping]),
  })
  if (deliveries > 0) deps.waker.wake("deliveries")
  if (outcome === "gone") throw webhookNotFound()
  if (outcome === "disabled") throw webhookDisabled()
  const answer = { deliveries, last_sequence: lastSequence, complete: outcome === "done" }
  const { body } = await once(deps, identity, async () => ({ made: {}, body: answer }))
  return { status: 202, body }
}

async function enabledWebhook({ db }: ApiDeps, call: Call<unknown, unknown>): Promise<string> {
  const webhook = await findWebhook(db, webhookIdOf(call))
  if (webhook === undefined) throw webhookNotFound()
  if (!webhook.enabled) throw webhookDisabled()
  return webhook.id
}

function tooLate(oldest: number): Answer {
  const answer = problem(
    "events_removed",
    `events before ${oldest} are no longer kept; replay from ${oldest}`,
  )
  return { ...answer, body: { ...answer.body, oldest } }
}
