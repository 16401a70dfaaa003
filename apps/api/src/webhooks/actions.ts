import { appendWebhookEvent } from "@stillframe/db/events/events"
import { lockWebhook, rotateSecret } from "@stillframe/db/webhooks/webhooks"
import { secretGraceMsMax } from "@stillframe/domain/webhook"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { once } from "../http/once.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { newWebhookSchema, webhookTestSchema } from "../openapi/resources.ts"
import { webhookDisabled, webhookIdOf, webhookNotFound } from "./id.ts"
import { makeWithSecret, showSecretAgain } from "./secret.ts"

const graceSeconds = { max: secretGraceMsMax / 1_000, unasked: 24 * 3_600 }

const rotateSchema = z
  .object({
    grace_seconds: z.int().min(0).max(graceSeconds.max).default(graceSeconds.unasked).meta({
      description: "Seconds that the previous secret signs as well. Defaults to a day.",
    }),
  })
  .meta({ id: "RotateSecretRequest", description: "The options of a rotation." })

export function webhookActionRoutes(deps: ApiDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/webhooks/:id/rotate-secret",
      operationId: "rotateWebhookSecret",
      summary: "Rotate a webhook's secret",
      answers: { 200: newWebhookSchema },
      scope: "webhook:write",
      body: rotateSchema,
      emptyBody: {},
      handle: (call) => rotate(deps, call),
      replay: async (call, kept) => ({ ...(await showSecretAgain(deps, call, kept)), status: 200 }),
    }),
    route({
      method: "post",
      path: "/webhooks/:id/test",
      operationId: "testWebhook",
      summary: "Send a test event to a webhook",
      answers: { 202: webhookTestSchema },
      scope: "webhook:write",
      handle: (call) => sendTest(deps, call),
      replay: async (_call, { body }) => ({ status: 202, body }),
    }),
  ]
}

async function rotate(deps: ApiDeps, call: Call<unknown, z.output<typeof rotateSchema>>): Promise<Answer> {
  const id = webhookIdOf(call)
  const graceMs = call.body.grace_seconds * 1_000
  const answer = await makeWithSecret(deps, call, async (tx, secret) => {
    const row = await rotateSecret(tx, id, { secret, graceMs })
    if (row === undefined) throw webhookNotFound()
    return row
  })
  return { ...answer, status: 200 }
}

async function sendTest(deps: ApiDeps, call: Call<unknown, unknown>): Promise<Answer> {
  const id = webhookIdOf(call)
  const { body } = await once(deps, call.identity, async (tx) => {
    const row = await lockWebhook(tx, id)
    if (row === undefined) throw webhookNotFound()
    if (!row.enabled) throw webhookDisabled()
    return { made: {}, body: { event_id: await appendWebhookEvent(tx, "webhook.test", row) } }
  })
  deps.waker.wake("events")
  return { status: 202, body }
}
