import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events/events"
import { liveHosts } from "@stillframe/db/hosts/hosts"
import { createInstance, lockInstance } from "@stillframe/db/instances/instances"
import { findShownInstance, listInstances, resolveInstance } from "@stillframe/db/instances/shown"
import {
  cancelInstanceWork,
  createOperation,
  pendingInstanceDelete,
} from "@stillframe/db/operations/operations"
import { failCapturesOf } from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { instanceResource, instanceStates } from "@stillframe/domain/instance"
import { captureQueue } from "@stillframe/domain/queues"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { booleanInQuery, nameSchema, tagsSchema } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { pageAnswer, pageQuery, pageRequest } from "../http/page.ts"
import { heldMs, waitSecondsMax } from "../http/prefer.ts"
import { failedWork } from "../http/problem.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { instanceSchema } from "../openapi/resources.ts"
import { snapshotPolicyOf } from "../snapshots/policy.ts"
import { chooseHost } from "./choose-host.ts"
import { createInstanceSchema, originOf } from "./launch.ts"
import { answerWithInstance, instanceWork, replayInstanceWork, waitForEnd, workGoesOn } from "./operations.ts"
import { requireHostUp } from "./require-host.ts"

export function instanceRoutes(deps: ApiDeps): Route[] {
  const { db } = deps
  return [
    route({
      method: "post",
      path: "/instances",
      operationId: "createInstance",
      summary: "Launch a VM, or attach to one",
      answers: { 201: instanceSchema, 202: instanceSchema },
      errors: [409, 501, 504],
      scope: "instance:write",
      alsoScope: { scope: "host:attach", when: ({ attach }) => attach !== undefined },
      body: createInstanceSchema,
      // Its paths, with each character written as \uXXXX, have up to 460 KiB.
      bodyKibMax: 512,
      holds: true,
      handle: (call) => launchInstance(deps, call),
      replay: replayInstanceWork(deps, 201),
    }),
    route({
      method: "get",
      path: "/instances",
      operationId: "listInstances",
      summary: "List instances",
      answers: { 200: z.array(instanceSchema) },
      scope: "instance:read",
      query: z.object({
        state: z.enum(instanceStates).optional().meta({ description: "Only instances in this state." }),
        name: nameSchema.optional().meta({ description: "Only the instance with exactly this name." }),
        tags: tagsSchema
          .optional()
          .meta({ description: "Only instances that have all of these tags: `tags[team]=backend`." }),
        ...pageQuery,
      }),
      async handle({ query, url }) {
        return pageAnswer(url, await listInstances(db, query, pageRequest(query)), instanceResource)
      },
    }),
    route({
      method: "get",
      path: "/instances/:id",
      operationId: "getInstance",
      summary: "Get an instance",
      answers: { 200: instanceSchema },
      errors: [409],
      scope: "instance:read",
      async handle({ params: { id = "" } }) {
        return { status: 200, body: instanceResource(await resolveInstance(db, id)) }
      },
    }),
    route({
      method: "delete",
      path: "/instances/:id",
      operationId: "deleteInstance",
      summary: "Delete an instance",
      answers: { 202: instanceSchema, 204: null },
      errors: [409, 504],
      scope: "instance:write",
      query: deleteQuery,
      holds: true,
      handle: (call) => deleteInstance(deps, call),
    }),
  ]
}

const deleteQuery = z.object({
  graceful_shutdown: booleanInQuery().optional().meta({
    description:
      "If true, the guest is asked to shut down before its VM is ended. It gets as long as for a stop (`STOP_GRACE`). Defaults to false.",
  }),
})

async function launchInstance(
  deps: ApiDeps,
  { body, prefer, identity, signal }: Call<unknown, z.output<typeof createInstanceSchema>>,
): Promise<Answer> {
  const snapshotPolicy = body.snapshot_policy && snapshotPolicyOf(body.snapshot_policy)
  const origin = originOf(body)
  if (body.host !== undefined) await requireHostUp(deps.db, body.host)
  const host = chooseHost(await liveHosts(deps.db), { wanted: body.host, hypervisor: body.hypervisor })
  const created = await once(deps, identity, async (tx) => {
    const instance = await createInstance(tx, {
      ...origin,
      name: body.name,
      hypervisor: body.hypervisor,
      host: host.name,
      tags: body.tags,
      snapshotPolicy,
    })
    const operationId = await createOperation(tx, {
      kind: "launch",
      queue: captureQueue(host.name),
      instanceId: instance.id,
    })
    await appendInstanceEvent(tx, "instance.created", instance)
    return instanceWork(instance, operationId)
  })
  deps.waker.wake("operations")
  deps.waker.wake("events")
  const timeoutMs = heldMs(prefer, { seconds: waitSecondsMax })
  return answerWithInstance(deps, created, { timeoutMs, signal, status: 201 })
}

/**
 * 204 when the VM has ended and the instance is gone; 202 when it is not within the answer's time, or its
 * host is not up: then the deletion is carried out later. A second DELETE joins the first.
 */
async function deleteInstance(
  deps: ApiDeps,
  { params: { id = "" }, query, prefer, signal }: Call<z.output<typeof deleteQuery>, unknown>,
): Promise<Answer> {
  const { id: instanceId } = await resolveInstance(deps.db, id)
  const params = query.graceful_shutdown === true ? { graceful: true } : {}
  const operationId = await inTransaction(deps.db, async (tx) => {
    const instance = await lockInstance(tx, instanceId)
    if (instance === undefined) throw new StillframeError("not_found", "resource not found")
    const pending = await pendingInstanceDelete(tx, instanceId)
    if (pending !== undefined) return pending
    // A capture under way is cancelled, its VM resumed, and only then ended.
    await failCapturesOf(tx, instanceId, "the instance was deleted before it was captured")
    await cancelInstanceWork(tx, instanceId)
    return createOperation(tx, { kind: "delete", queue: captureQueue(instance.host), instanceId, params })
  })
  deps.waker.wake("operations")
  deps.waker.wake("events")
  const timeoutMs = heldMs(prefer, { seconds: waitSecondsMax })
  const end = timeoutMs > 0 ? await waitForEnd(deps, operationId, { timeoutMs, signal }) : undefined
  if (end !== undefined) return end.state === "done" ? { status: 204 } : failedWork(end)
  const left = await findShownInstance(deps.db, instanceId)
  if (left === undefined) return { status: 204 }
  const headers = { Location: `/instances/${instanceId}` }
  return workGoesOn(deps, { body: instanceResource(left), headers, held: timeoutMs > 0 })
}
