import { resolveInstance, type InstanceRow } from "@stillframe/db/instances"
import { createSnapshot as insertSnapshot, findSnapshot, type SnapshotRow } from "@stillframe/db/snapshots"
import {
  compressionMistake,
  effectiveCompression,
  type CompressionConfig,
} from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { captureStates, type InstanceState } from "@stillframe/domain/instance"
import { captureQueue } from "@stillframe/domain/queues"
import { snapshotResource, type SnapshotKind } from "@stillframe/domain/snapshot"
import type { z } from "zod"
import { heldMs } from "./prefer.ts"
import { failedWork, problem } from "./problem.ts"
import type { Answer, ApiDeps, Call } from "./route.ts"
import type { createSnapshotSchema } from "./schemas.ts"
import { waitUntil } from "./wait.ts"

/**
 * 202 as soon as the request is on record; with `Prefer: wait=N` 201 once the capture is durable. Two round trips to the
 * database: find the instance, write it all.
 */
export async function createSnapshot(
  deps: ApiDeps,
  { params: { id = "" }, body, prefer, signal }: Call<unknown, z.output<typeof createSnapshotSchema>>,
): Promise<Answer> {
  const instance = await resolveInstance(deps.db, id)
  checkCompression(body.kind, body.compression)
  checkState(body.kind, instance)
  if (instance.pool === null)
    throw new StillframeError(
      "unavailable",
      `host "${instance.host}" is not known; start its capture-worker and try again`,
    )
  const created = await insertSnapshot(deps.db, {
    kind: body.kind,
    name: body.name,
    tags: body.tags,
    compression:
      body.kind === "Standby"
        ? effectiveCompression(body.compression, instance.snapshot_policy?.compression, deps.compression)
        : undefined,
    queue: captureQueue(instance.host),
    pool: instance.pool,
    instance,
  })
  deps.waker.wake("operations")
  deps.waker.wake("events")
  return answer(deps, created, { timeoutMs: heldMs(prefer, { seconds: 0 }), signal })
}

function checkCompression(kind: SnapshotKind, compression: CompressionConfig | undefined): void {
  if (compression === undefined) return
  const mistake = compressionMistake(compression)
  if (mistake !== undefined) throw new StillframeError("invalid_snapshot_compression", mistake)
  if (kind === "Stopped" && compression.enabled)
    throw new StillframeError("invalid_request", "compression is only supported for standby snapshots")
}

function checkState(kind: SnapshotKind, { state }: InstanceRow): void {
  const allowed: readonly InstanceState[] = captureStates[kind]
  if (!allowed.includes(state)) {
    const required = allowed.join(" or ")
    throw new StillframeError(
      "conflict",
      `invalid state transition: ${kind.toLowerCase()} snapshot requires source in ${required}, got ${state}`,
    )
  }
}

async function answer(
  deps: ApiDeps,
  created: SnapshotRow,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<Answer> {
  const headers = { Location: `/snapshots/${created.id}` }
  let snapshot: SnapshotRow | undefined = created
  if (options.timeoutMs > 0) {
    await waitUntil(
      deps,
      async () => {
        snapshot = await findSnapshot(deps.db, created.id)
        return (snapshot?.status !== "queued" && snapshot?.status !== "capturing") || undefined
      },
      options,
    )
  }
  if (snapshot === undefined)
    return problem("conflict", "the snapshot was deleted before it was captured", { retry: false })
  if (snapshot.status === "failed") return failedWork(snapshot)
  return { status: snapshot.status === "ready" ? 201 : 202, body: snapshotResource(snapshot), headers }
}
