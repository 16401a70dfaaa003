import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent } from "@stillframe/db/events"
import { createInstance, findInstanceEvenDeleted, type InstanceRow } from "@stillframe/db/instances"
import { createOperation } from "@stillframe/db/operations"
import { lockSnapshot, type SnapshotRow } from "@stillframe/db/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { captureQueue } from "@stillframe/domain/queues"
import type { z } from "zod"
import { answerWithInstance } from "./operations.ts"
import { heldMs, waitSecondsMax } from "./prefer.ts"
import { problem } from "./problem.ts"
import { route, type Answer, type ApiDeps, type Call, type Route } from "./route.ts"
import { forkSnapshotSchema } from "./schemas.ts"
import { requireSnapshot } from "./snapshots.ts"
import { waitUntil } from "./wait.ts"

type ForkRequest = z.output<typeof forkSnapshotSchema>

/** What a client that may not wait any longer for a capture should wait before it asks again. */
const retryAfterMs = 1_000

export function forkRoutes(deps: ApiDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/snapshots/:id/fork",
      scope: "snapshot:write",
      body: forkSnapshotSchema,
      handle: (call) => fork(deps, call),
    }),
  ]
}

/** A snapshot that is still to be captured is waited for; the time of the answer is for both. */
async function fork(
  deps: ApiDeps,
  { params, body, prefer, signal }: Call<unknown, ForkRequest>,
): Promise<Answer> {
  const deadline = performance.now() + heldMs(prefer, { seconds: waitSecondsMax })
  const left = (): { timeoutMs: number; signal: AbortSignal } => ({
    timeoutMs: Math.max(0, deadline - performance.now()),
    signal,
  })
  const snapshot = await waitUntil(
    deps,
    async () => {
      const current = await requireSnapshot(deps.db, params["id"])
      return current.status === "queued" || current.status === "capturing" ? undefined : current
    },
    left(),
  )
  if (snapshot === undefined) {
    const message = "the snapshot is not captured yet; try again when its status is ready"
    return problem("conflict", message, { retry: true, retryAfterMs })
  }
  checkFork(snapshot, body)
  const created = await insertFork(deps, snapshot.id, body)
  deps.waker.wake("operations")
  deps.waker.wake("events")
  return answerWithInstance(deps, created, left())
}

function checkFork(snapshot: SnapshotRow, { target_state, target_hypervisor }: ForkRequest): void {
  if (snapshot.status === "failed") {
    const reason = snapshot.error_message ?? "its capture did not succeed"
    throw new StillframeError("conflict", `snapshot ${snapshot.id} has failed and can't be forked: ${reason}`)
  }
  if (target_hypervisor !== undefined && snapshot.kind === "Standby")
    throw new StillframeError("invalid_request", "target_hypervisor is only allowed for stopped snapshots")
  if (target_state !== undefined && target_state !== "Running")
    throw new StillframeError(
      "not_supported",
      `forking into state ${target_state} is not supported yet; leave target_state out, or say Running`,
    )
}

function insertFork(
  { db }: ApiDeps,
  snapshotId: string,
  { name }: ForkRequest,
): Promise<{ instance: InstanceRow; operationId: string }> {
  return inTransaction(db, async (tx) => {
    const snapshot = await requireSnapshot(tx, snapshotId, lockSnapshot)
    // The source may be gone for whoever asks; its row still says what it was.
    const source = await findInstanceEvenDeleted(tx, snapshot.source_instance_id)
    const instance = await createInstance(tx, {
      name,
      image: source.image,
      hypervisor: source.hypervisor,
      host: snapshot.host,
      launch: source.launch,
      vcpus: source.vcpus,
      memoryMib: source.memory_mib,
      tags: source.tags,
      snapshotPolicy: source.snapshot_policy ?? undefined,
      sourceSnapshotId: snapshot.id,
    })
    const operationId = await createOperation(tx, {
      kind: "fork",
      queue: captureQueue(snapshot.host),
      instanceId: instance.id,
      snapshotId: snapshot.id,
    })
    await appendInstanceEvent(tx, "instance.created", instance)
    return { instance, operationId }
  })
}
