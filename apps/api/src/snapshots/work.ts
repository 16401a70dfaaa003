import { appendSnapshotEvent } from "@stillframe/db/events/events"
import { startCompression } from "@stillframe/db/operations/compressions"
import { createOperation } from "@stillframe/db/operations/operations"
import type { Database } from "@stillframe/db/schema"
import type { Made } from "@stillframe/db/snapshots/idempotency"
import {
  findSnapshot,
  lockSnapshot,
  requireSound,
  type SnapshotRow,
} from "@stillframe/db/snapshots/snapshots"
import { requestVerification } from "@stillframe/db/snapshots/verifications"
import { compressionMistake, compressionOf } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { compressQueue } from "@stillframe/domain/queues"
import { snapshotResource } from "@stillframe/domain/snapshot"
import type { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { compressSnapshotSchema } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { heldMs } from "../http/prefer.ts"
import { failedWork, problem } from "../http/problem.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { waitForEnd } from "../instances/operations.ts"
import { requireCompressionWorker } from "../instances/require-host.ts"
import { snapshotSchema } from "../openapi/resources.ts"
import { requireSnapshot } from "./snapshots.ts"

/** Work on the files of a snapshot: 202 at once, with `Prefer: wait=N` 200 when it is done. */
export function snapshotWorkRoutes(deps: ApiDeps): Route[] {
  const work = {
    answers: { 200: snapshotSchema, 202: snapshotSchema },
    errors: [409, 501],
    scope: "snapshot:write",
    holds: true,
    replay: (call: Call<unknown, unknown>, made: Made) => answer(deps, call, made, { replayed: true }),
  } as const
  return [
    route({
      ...work,
      method: "post",
      path: "/snapshots/:id/verify",
      operationId: "verifySnapshot",
      summary: "Verify a snapshot",
      handle: (call) => begin(deps, call, { kind: "verify", work: requestVerification }),
    }),
    route({
      ...work,
      method: "post",
      path: "/snapshots/:id/compress",
      operationId: "compressSnapshot",
      summary: "Compress a snapshot",
      body: compressSnapshotSchema,
      emptyBody: {},
      handle: (call) =>
        begin(deps, call, {
          kind: "compress",
          work: (tx, snapshot) => compress(tx, snapshot, call.body, deps),
        }),
    }),
  ]
}

/** The operation that was begun; undefined: there is nothing to do. */
type Begin = (tx: Database, snapshot: SnapshotRow) => Promise<string | undefined>

async function begin(
  deps: ApiDeps,
  call: Call<unknown, unknown>,
  { kind, work }: { kind: "verify" | "compress"; work: Begin },
): Promise<Answer> {
  const begun = await once(deps, call.identity, async (tx) => {
    const snapshot = await requireSnapshot(tx, call.params["id"], lockSnapshot)
    requireCaptured(snapshot)
    const operationId = await work(tx, snapshot)
    // After the mistakes of the request; what was begun is undone with the transaction.
    if (operationId !== undefined) await requireCompressionWorker(tx, snapshot.pool)
    const { id: snapshotId } = snapshot
    const body = snapshotResource((await findSnapshot(tx, snapshotId)) ?? snapshot)
    return { made: { snapshotId, kind, ...(operationId !== undefined && { operationId }) }, body }
  })
  deps.waker.wake("operations")
  deps.waker.wake("events")
  return answer(deps, call, begun)
}

async function answer(
  deps: ApiDeps,
  { prefer, signal }: Call<unknown, unknown>,
  { made: { snapshotId = "", kind, operationId }, body }: Made,
  { replayed = false } = {},
): Promise<Answer> {
  const headers = { Location: `/snapshots/${snapshotId}` }
  const timeoutMs = heldMs(prefer, { seconds: 0 })
  const end =
    // Work that has just begun is not over yet; work of an earlier request may be.
    operationId !== undefined && (timeoutMs > 0 || replayed)
      ? await waitForEnd(deps, operationId, { timeoutMs, signal })
      : undefined
  const snapshot = await findSnapshot(deps.db, snapshotId)
  if (snapshot === undefined && end !== undefined && !replayed)
    return problem("conflict", "the snapshot was deleted before this answer was given", { retry: false })
  // A compression's failure is in the snapshot, as everywhere.
  if (end?.state === "failed" && kind === "verify" && snapshot !== undefined) return failedWork(end)
  const done = operationId === undefined || end !== undefined
  return {
    status: done ? 200 : 202,
    body: snapshot === undefined ? body : snapshotResource(snapshot),
    headers,
  }
}

async function compress(
  tx: Database,
  snapshot: SnapshotRow,
  body: z.output<typeof compressSnapshotSchema>,
  { compression: ofServer }: ApiDeps,
): Promise<string | undefined> {
  const mistake = compressionMistake({ ...body, enabled: true })
  if (mistake !== undefined) throw new StillframeError("invalid_snapshot_compression", mistake)
  if (snapshot.kind === "Stopped")
    throw new StillframeError("invalid_request", "compression is only supported for standby snapshots")
  if (snapshot.compression_reason !== null)
    throw new StillframeError(
      "not_supported",
      `this snapshot can't be compressed: ${snapshot.compression_reason}. It stays as it is`,
    )
  requireSound(snapshot)
  const { compression: before, compression_state: state } = snapshot
  if (state === "compressing")
    throw new StillframeError(
      "conflict",
      "the snapshot is being compressed; wait until its compression_state is final",
    )
  const unasked = body.algorithm === undefined && body.level === undefined
  const wanted = compressionOf(unasked ? (before ?? ofServer) : body)
  const compressed = state === "compressed" && before !== null
  if (compressed && wanted.algorithm === before.algorithm && wanted.level === before.level) return undefined
  const compressing = await startCompression(tx, snapshot.id, wanted)
  const operationId = await createOperation(tx, {
    kind: "compress",
    queue: compressQueue(snapshot.pool),
    snapshotId: snapshot.id,
    params: { again: true, ...(compressed && { before }) },
  })
  await appendSnapshotEvent(tx, "snapshot.updated", compressing)
  return operationId
}

function requireCaptured({ id, status }: SnapshotRow): void {
  if (status === "ready") return
  const message =
    status === "failed"
      ? `snapshot ${id} has failed, so it has no files`
      : `snapshot ${id} is ${status}; try again when its status is ready`
  throw new StillframeError("conflict", message)
}
