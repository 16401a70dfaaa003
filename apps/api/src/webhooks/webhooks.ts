import { inTransaction } from "@stillframe/db/client"
import {
  createWebhook,
  deleteWebhook,
  findWebhook,
  listWebhooks,
  updateWebhook,
} from "@stillframe/db/webhooks/webhooks"
import { webhookResource } from "@stillframe/domain/webhook"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { pageAnswer, pageQuery, pageRequest } from "../http/page.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { newWebhookSchema, webhookSchema } from "../openapi/resources.ts"
import { webhookIdOf, webhookNotFound } from "./id.ts"
import { assertWebhookRoom } from "./limits.ts"
import { createWebhookSchema, updateWebhookSchema } from "./schemas.ts"
import { makeWithSecret, showSecretAgain } from "./secret.ts"
import { shownTo } from "./shown.ts"
import { refuseUnreachable } from "./url.ts"

export function webhookRoutes(deps: ApiDeps): Route[] {
  const { db } = deps
  return [
    route({
      method: "post",
      path: "/webhooks",
      operationId: "createWebhook",
      summary: "Create a webhook",
      answers: { 201: newWebhookSchema },
      scope: "webhook:write",
      body: createWebhookSchema,
      handle: (call) => create(deps, call),
      replay: async (call, kept) => ({ ...(await showSecretAgain(deps, call, kept)), status: 201 }),
    }),
    route({
      method: "get",
      path: "/webhooks",
      operationId: "listWebhooks",
      summary: "List webhooks",
      answers: { 200: z.array(webhookSchema) },
      scope: "webhook:read",
      query: z.object(pageQuery),
      handle: async ({ query, url }) =>
        pageAnswer(url, await listWebhooks(db, pageRequest(query)), webhookResource),
    }),
    route({
      method: "get",
      path: "/webhooks/:id",
      operationId: "getWebhook",
      summary: "Get a webhook",
      answers: { 200: webhookSchema },
      scope: "webhook:read",
      async handle(call) {
        const row = await findWebhook(db, webhookIdOf(call))
        if (row === undefined) throw webhookNotFound()
        return { status: 200, body: webhookResource(row) }
      },
    }),
    route({
      method: "patch",
      path: "/webhooks/:id",
      operationId: "updateWebhook",
      summary: "Update a webhook",
      answers: { 200: webhookSchema },
      scope: "webhook:write",
      body: updateWebhookSchema,
      errors: [409],
      handle: (call) => update(deps, call),
    }),
    route({
      method: "delete",
      path: "/webhooks/:id",
      operationId: "deleteWebhook",
      summary: "Delete a webhook",
      answers: { 204: null },
      scope: "webhook:write",
      async handle(call) {
        if (!(await deleteWebhook(db, webhookIdOf(call)))) throw webhookNotFound()
        return { status: 204 }
      },
    }),
  ]
}

async function create(
  deps: ApiDeps,
  call: Call<unknown, z.output<typeof createWebhookSchema>>,
): Promise<Answer> {
  const { event_types: eventTypes, instance_ids: instanceIds, ...fields } = call.body
  await refuseUnreachable(deps, fields.url)
  const answer = await makeWithSecret(deps, call, async (tx, secret) => {
    await assertWebhookRoom(tx, deps.webhookLimits, { url: fields.url })
    return createWebhook(tx, { ...fields, eventTypes, instanceIds, secret })
  })
  return { ...answer, status: 201 }
}

async function update(
  deps: ApiDeps,
  call: Call<unknown, z.output<typeof updateWebhookSchema>>,
): Promise<Answer> {
  const { event_types: eventTypes, instance_ids: instanceIds, ...changes } = call.body
  const id = webhookIdOf(call)
  const { url } = changes
  if (url !== undefined) await refuseUnreachable(deps, url)
  const row = await inTransaction(deps.db, async (tx) => {
    if (url !== undefined) await assertWebhookRoom(tx, deps.webhookLimits, { url, changed: id })
    return updateWebhook(tx, id, { ...changes, eventTypes, instanceIds })
  })
  if (row === undefined) throw webhookNotFound()
  // Deliveries that waited while it was disabled are due.
  if (changes.enabled === true) deps.waker.wake("deliveries")
  return { status: 200, body: shownTo(call, webhookResource(row)) }
}
