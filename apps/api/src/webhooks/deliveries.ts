import { findDelivery, listAttempts, listDeliveries } from "@stillframe/db/webhooks/list-deliveries"
import { resendDelivery } from "@stillframe/db/webhooks/resend-delivery"
import { findWebhook } from "@stillframe/db/webhooks/webhooks"
import {
  attemptResource,
  deliveryResource,
  deliveryStates,
  type DeliveryRecord,
} from "@stillframe/domain/delivery"
import { StillframeError } from "@stillframe/domain/errors"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { numberInQuery } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { nextPageHeaders } from "../http/page.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { deliverySchema, deliveryWithAttemptsSchema } from "./delivery-schemas.ts"
import { webhookDisabled, webhookIdOf, webhookNotFound } from "./id.ts"

const deliveriesPerAnswer = { max: 1_000, unasked: 100 }

const listQuery = z.object({
  state: z.enum(deliveryStates).optional().meta({ description: "Only deliveries in this state." }),
  limit: numberInQuery({ min: 1, max: deliveriesPerAnswer.max })
    .optional()
    .meta({ description: "The most deliveries in the answer. Defaults to 100." }),
  cursor: z
    .string()
    .regex(/^\d{1,15}$/, { error: "it is not a cursor of this API; start without a cursor" })
    .optional()
    .meta({ description: "The start of the page: the `X-Next-Cursor` of the previous page." }),
})

export function deliveryRoutes(deps: ApiDeps): Route[] {
  const { db } = deps
  return [
    route({
      method: "get",
      path: "/webhooks/:id/deliveries",
      operationId: "listDeliveries",
      summary: "List a webhook's deliveries, newest first",
      answers: { 200: z.array(deliverySchema) },
      scope: "webhook:read",
      query: listQuery,
      handle: (call) => list(deps, call),
    }),
    route({
      method: "get",
      path: "/deliveries/:id",
      operationId: "getDelivery",
      summary: "Get a delivery",
      answers: { 200: deliveryWithAttemptsSchema },
      scope: "webhook:read",
      async handle(call) {
        const row = await getDelivery(deps, call)
        const attempts = (await listAttempts(db, row.id)).map(attemptResource)
        return { status: 200, body: { ...deliveryResource(row), attempts } }
      },
    }),
    route({
      method: "post",
      path: "/deliveries/:id/resend",
      operationId: "resendDelivery",
      summary: "Send a delivery again",
      answers: { 202: deliverySchema },
      scope: "webhook:write",
      handle: (call) => resend(deps, call),
      async replay({ params: { id = "" } }, { body }) {
        // It goes with its webhook and with its event.
        const row = await findDelivery(db, Number(id))
        return { status: 202, body: row === undefined ? body : deliveryResource(row) }
      },
    }),
  ]
}

async function list({ db }: ApiDeps, call: Call<z.output<typeof listQuery>, unknown>): Promise<Answer> {
  const { state, limit = deliveriesPerAnswer.unasked, cursor } = call.query
  const webhookId = webhookIdOf(call)
  if ((await findWebhook(db, webhookId)) === undefined) throw webhookNotFound()
  const before = cursor === undefined ? undefined : Number(cursor)
  const { rows, next } = await listDeliveries(db, { webhookId, state, limit, before })
  const headers = next === undefined ? {} : nextPageHeaders(call.url, String(next))
  return { status: 200, body: rows.map(deliveryResource), headers }
}

async function resend(deps: ApiDeps, call: Call<unknown, unknown>): Promise<Answer> {
  const { id, webhook_id: webhookId } = await getDelivery(deps, call)
  const { body } = await once(deps, call.identity, async (tx) => {
    const outcome = await resendDelivery(tx, { id, webhookId })
    if (outcome === "disabled") throw webhookDisabled()
    const row = outcome === "resent" ? await findDelivery(tx, id) : undefined
    if (row === undefined) throw deliveryNotFound()
    return { made: {}, body: deliveryResource(row) }
  })
  deps.waker.wake("deliveries")
  return { status: 202, body }
}

async function getDelivery(
  { db }: ApiDeps,
  { params: { id = "" } }: Pick<Call<unknown, unknown>, "params">,
): Promise<DeliveryRecord> {
  const row = deliveryIdPattern.test(id) ? await findDelivery(db, Number(id)) : undefined
  if (row === undefined) throw deliveryNotFound()
  return row
}

// As long as a number is sure to be the one that was written.
const deliveryIdPattern = /^[1-9]\d{0,14}$/

function deliveryNotFound(): StillframeError {
  return new StillframeError(
    "not_found",
    "delivery not found; deliveries are deleted with their webhook and their event",
  )
}
