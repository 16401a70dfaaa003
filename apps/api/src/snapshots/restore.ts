import { type InstanceRow } from "@stillframe/db/instances/instances"
import { resolveInstance } from "@stillframe/db/instances/shown"
import { createOperation } from "@stillframe/db/operations/operations"
import type { Database } from "@stillframe/db/schema"
import {
  findSnapshot,
  lockSnapshot,
  type ShownSnapshot,
  type SnapshotRow,
} from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { idPattern } from "@stillframe/domain/ids"
import { captureQueue } from "@stillframe/domain/queues"
import type { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { restoreSnapshotSchema } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { heldMs, waitSecondsMax } from "../http/prefer.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { action, claimState } from "../instances/actions.ts"
import { answerWithInstance, instanceWork, replayInstanceWork } from "../instances/operations.ts"
import { requireHost } from "../instances/require-host.ts"
import { instanceSchema } from "../openapi/resources.ts"
import { requireRestorable, requireUsable, useOf, whenCaptured, type SnapshotUse } from "./use.ts"

type RestoreRequest = z.output<typeof restoreSnapshotSchema>

export function restoreRoutes(deps: ApiDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/instances/:id/snapshots/:snapshotId/restore",
      operationId: "restoreInstanceSnapshot",
      summary: "Restore an instance to a snapshot",
      answers: { 200: instanceSchema, 202: instanceSchema },
      errors: [409, 501, 504],
      scope: "snapshot:write",
      body: restoreSnapshotSchema,
      holds: true,
      handle: (call) => restore(deps, call),
      replay: replayInstanceWork(deps, 200),
    }),
  ]
}

/** Puts an instance back to one of its snapshots; one that is still to be captured is waited for. */
async function restore(
  deps: ApiDeps,
  { params: { id = "", snapshotId = "" }, body, prefer, identity, signal }: Call<unknown, RestoreRequest>,
): Promise<Answer> {
  const resolved = await resolveInstance(deps.db, id)
  const { id: instanceId } = resolved
  const deadline = performance.now() + heldMs(prefer, { seconds: waitSecondsMax })
  const left = (): { timeoutMs: number; signal: AbortSignal } => ({
    timeoutMs: Math.max(0, deadline - performance.now()),
    signal,
  })
  const read = async (): Promise<ShownSnapshot> => {
    const snapshot = idPattern.test(snapshotId) ? await findSnapshot(deps.db, snapshotId) : undefined
    return requireOf(snapshot, instanceId)
  }
  // Refuse an impossible request before waiting for anything.
  const asked = await read()
  requireHost(resolved)
  await useAfterState(deps.db, asked, resolved, body)
  const waited = await whenCaptured(deps, read, left())
  if ("answer" in waited) return waited.answer
  const begun = await once(deps, identity, async (tx) => {
    const instance = await claimState(tx, instanceId)
    const snapshot = requireOf(await lockSnapshot(tx, snapshotId), instanceId)
    requireUsable(snapshot, "restored")
    const use = await useAfterState(tx, snapshot, instance, body)
    const operationId = await createOperation(tx, {
      kind: "restore",
      queue: captureQueue(instance.host),
      instanceId,
      snapshotId: snapshot.id,
      params: { ...use },
    })
    return instanceWork(instance, operationId)
  })
  deps.waker.wake("operations")
  return answerWithInstance(deps, begun, { ...left(), status: 200 })
}

/** In the contract's order: the instance's state, then what the snapshot's kind allows. */
async function useAfterState(
  db: Database,
  snapshot: SnapshotRow,
  instance: InstanceRow,
  body: RestoreRequest,
): Promise<SnapshotUse> {
  action("restore", instance)
  requireRestorable(snapshot)
  return useOf(db, snapshot, instance, body)
}

function requireOf<Row extends SnapshotRow>(snapshot: Row | undefined, instanceId: string): Row {
  if (snapshot === undefined) throw new StillframeError("not_found", "instance or snapshot not found")
  if (snapshot.source_instance_id !== instanceId)
    throw new StillframeError(
      "invalid_request",
      `snapshot ${snapshot.id} belongs to instance ${snapshot.source_instance_id}; fork it to make a new instance`,
    )
  return snapshot
}
