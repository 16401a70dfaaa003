import { randomBytes } from "node:crypto"
import type { Made } from "@stillframe/db/idempotency"
import {
  createWebhook,
  deleteWebhook,
  findWebhook,
  listWebhooks,
  updateWebhook,
} from "@stillframe/db/webhooks"
import { StillframeError } from "@stillframe/domain/errors"
import { idPattern } from "@stillframe/domain/ids"
import { webhookResource } from "@stillframe/domain/webhook"
import { openSecret, sealSecret } from "@stillframe/runtime/secrets"
import { z } from "zod"
import { once } from "./once.ts"
import { pageAnswer, pageQuery, pageRequest } from "./page.ts"
import { newWebhookSchema, webhookSchema } from "./resources.ts"
import { route, type Answer, type ApiDeps, type Call, type Route } from "./route.ts"
import { createWebhookSchema, updateWebhookSchema } from "./webhook-schemas.ts"

const secretBytes = 32

export function webhookRoutes(deps: ApiDeps): Route[] {
  const { db } = deps
  return [
    route({
      method: "post",
      path: "/webhooks",
      operationId: "createWebhook",
      summary: "Have events sent to a URL",
      answers: { 201: newWebhookSchema },
      scope: "webhook:write",
      body: createWebhookSchema,
      handle: (call) => create(deps, call),
      replay: (_call, kept) => showAgain(deps, kept),
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
      async handle({ params: { id = "" } }) {
        const row = idPattern.test(id) ? await findWebhook(db, id) : undefined
        if (row === undefined) throw notFound()
        return { status: 200, body: webhookResource(row) }
      },
    }),
    route({
      method: "patch",
      path: "/webhooks/:id",
      operationId: "updateWebhook",
      summary: "Change a webhook",
      answers: { 200: webhookSchema },
      scope: "webhook:write",
      body: updateWebhookSchema,
      handle: (call) => update(deps, call),
    }),
    route({
      method: "delete",
      path: "/webhooks/:id",
      operationId: "deleteWebhook",
      summary: "Delete a webhook; nothing more is sent",
      answers: { 204: null },
      scope: "webhook:write",
      async handle({ params: { id = "" } }) {
        if (!idPattern.test(id) || !(await deleteWebhook(db, id))) throw notFound()
        return { status: 204 }
      },
    }),
  ]
}

async function create(
  deps: ApiDeps,
  { body, identity }: Call<unknown, z.output<typeof createWebhookSchema>>,
): Promise<Answer> {
  // The form of Standard Webhooks; this answer is the only place that ever shows it.
  const secret = `whsec_${randomBytes(secretBytes).toString("base64")}`
  const sealed = sealSecret(deps.secretsKey, secret)
  const { body: resource, made } = await once(deps, identity, async (tx) => {
    const row = await createWebhook(tx, {
      url: body.url,
      description: body.description,
      eventTypes: body.event_types,
      instanceIds: body.instance_ids,
      tags: body.tags,
      enabled: body.enabled,
      secret: sealed,
    })
    const made = { webhookId: row.id, sealedSecret: sealed.toString("base64") }
    return { made, body: webhookResource(row) }
  })
  const headers = { Location: `/webhooks/${made.webhookId}` }
  return { status: 201, body: { ...resource, secret }, headers }
}

async function update(
  { db, waker }: ApiDeps,
  { params: { id = "" }, body }: Call<unknown, z.output<typeof updateWebhookSchema>>,
): Promise<Answer> {
  const { event_types: eventTypes, instance_ids: instanceIds, ...changes } = body
  const row = idPattern.test(id)
    ? await updateWebhook(db, id, { ...changes, eventTypes, instanceIds })
    : undefined
  if (row === undefined) throw notFound()
  // What has waited while it was disabled is due.
  if (body.enabled === true) waker.wake("events")
  return { status: 200, body: webhookResource(row) }
}

/** To the caller who made it, the secret too: the first answer may never have arrived. */
async function showAgain(
  { db, secretsKey }: ApiDeps,
  { made: { webhookId = "", sealedSecret }, body }: Made,
): Promise<Answer> {
  const row = await findWebhook(db, webhookId)
  const resource = row === undefined ? body : webhookResource(row)
  // A key that was kept before secrets were kept with it; it is gone in a day.
  if (sealedSecret === undefined) return { status: 201, body: resource }
  const secret = openSecret(secretsKey, Buffer.from(sealedSecret, "base64"))
  return { status: 201, body: { ...resource, secret } }
}

function notFound(): StillframeError {
  return new StillframeError("not_found", "webhook not found")
}
