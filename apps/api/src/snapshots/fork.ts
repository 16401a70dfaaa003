import { appendInstanceEvent } from "@stillframe/db/events/events"
import { createInstance, findInstanceEvenDeleted } from "@stillframe/db/instances/instances"
import { createOperation } from "@stillframe/db/operations/operations"
import type { Database } from "@stillframe/db/schema"
import { lockSnapshot } from "@stillframe/db/snapshots/snapshots"
import { captureQueue } from "@stillframe/domain/queues"
import type { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { forkSnapshotSchema } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { heldMs, waitSecondsMax } from "../http/prefer.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import {
  answerWithInstance,
  instanceWork,
  replayInstanceWork,
  type InstanceWork,
} from "../instances/operations.ts"
import { hostFor } from "../instances/require-host.ts"
import { instanceSchema } from "../openapi/resources.ts"
import { requireSnapshot } from "./snapshots.ts"
import { hypervisorFor, requireRestorable, requireUsable, useOf, whenCaptured } from "./use.ts"

type ForkRequest = z.output<typeof forkSnapshotSchema>

export function forkRoutes(deps: ApiDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/snapshots/:id/fork",
      operationId: "forkSnapshot",
      summary: "Fork a snapshot into a new instance",
      answers: { 201: instanceSchema, 202: instanceSchema },
      errors: [409, 501, 504],
      scope: "snapshot:write",
      body: forkSnapshotSchema,
      holds: true,
      handle: (call) => fork(deps, call),
      replay: replayInstanceWork(deps, 201),
    }),
  ]
}

/** A snapshot that is still to be captured is waited for; the time of the answer is for both. */
async function fork(
  deps: ApiDeps,
  { params, body, prefer, identity, signal }: Call<unknown, ForkRequest>,
): Promise<Answer> {
  const deadline = performance.now() + heldMs(prefer, { seconds: waitSecondsMax })
  const left = (): { timeoutMs: number; signal: AbortSignal } => ({
    timeoutMs: Math.max(0, deadline - performance.now()),
    signal,
  })
  const waited = await whenCaptured(deps, () => requireSnapshot(deps.db, params["id"]), left())
  if ("answer" in waited) return waited.answer
  const created = await once(deps, identity, (tx) => insertFork(tx, waited.snapshot.id, body))
  deps.waker.wake("operations")
  deps.waker.wake("events")
  return answerWithInstance(deps, created, { ...left(), status: 201 })
}

async function insertFork(tx: Database, snapshotId: string, body: ForkRequest): Promise<InstanceWork> {
  const snapshot = await requireSnapshot(tx, snapshotId, lockSnapshot)
  requireUsable(snapshot, "forked")
  requireRestorable(snapshot)
  // The source may be gone for whoever asks; its row still says what it was.
  const source = await findInstanceEvenDeleted(tx, snapshot.source_instance_id)
  const hypervisor = hypervisorFor(snapshot, body)
  const host = await hostFor(tx, { ...snapshot, hypervisor })
  const instance = await createInstance(tx, {
    name: body.name,
    image: source.image,
    hypervisor,
    host: host.name,
    launch: source.launch,
    vcpus: source.vcpus,
    memoryMib: source.memory_mib,
    tags: source.tags,
    snapshotPolicy: source.snapshot_policy ?? undefined,
    sourceSnapshotId: snapshot.id,
  })
  // After the name, as the contract judges; what is thrown here undoes it.
  const use = await useOf(tx, { ...snapshot, host: host.name }, source, body)
  const operationId = await createOperation(tx, {
    kind: "fork",
    queue: captureQueue(host.name),
    instanceId: instance.id,
    snapshotId: snapshot.id,
    params: { ...use },
  })
  await appendInstanceEvent(tx, "instance.created", instance)
  return instanceWork(instance, operationId)
}
