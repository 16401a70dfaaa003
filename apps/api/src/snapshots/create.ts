import { inTransaction } from "@stillframe/db/client"
import { type InstanceRow } from "@stillframe/db/instances/instances"
import { resolveInstance } from "@stillframe/db/instances/shown"
import type { Made } from "@stillframe/db/snapshots/idempotency"
import { findEarlierTry, lockTries } from "@stillframe/db/snapshots/repeated-creates"
import {
  createSnapshot as insertSnapshot,
  findSnapshot,
  type NewSnapshot,
} from "@stillframe/db/snapshots/snapshots"
import {
  compressionMistake,
  effectiveCompression,
  type CompressionConfig,
} from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { captureStates, mayCapture } from "@stillframe/domain/instance"
import { captureQueue } from "@stillframe/domain/queues"
import { snapshotResource, type SnapshotKind, type SnapshotRecord } from "@stillframe/domain/snapshot"
import type { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import type { createSnapshotSchema } from "../http/input/schemas.ts"
import { once } from "../http/once.ts"
import { heldMs, waitSecondsMax } from "../http/prefer.ts"
import { failedWork, problem } from "../http/problem.ts"
import type { Answer, Call } from "../http/route.ts"
import { waitUntil } from "../http/wait.ts"
import { whyIn } from "../instances/actions.ts"
import { requireHost } from "../instances/require-host.ts"
import { requireLiveCapture } from "./live-capture.ts"

type CreateCall = Call<unknown, z.output<typeof createSnapshotSchema>>

/**
 * 202 as soon as the request is on record; with `Prefer: wait=N` 201 once the capture is durable. Two round
 * trips to the database: find the instance, write it all; once a second a third, which counts open captures.
 * A client's own retry, and a request with a known key, gets what is there.
 */
export async function createSnapshot(deps: ApiDeps, call: CreateCall): Promise<Answer> {
  const { createTry } = call.identity
  const isRetry = createTry !== undefined && createTry.retry > 0
  const earlier = isRetry ? await findEarlierTry(deps.db, createTry) : undefined
  if (earlier !== undefined) return answer(deps, call, earlier)
  const requested = await judge(deps, call)
  const { queue, instance } = requested
  await deps.admitCapture({ instanceId: instance.id, queue, caller: call.caller })
  // A client that has left will ask again, and must not find two snapshots.
  call.signal.throwIfAborted()
  const created = await insert(deps, call, requested)
  deps.waker.wake("operations")
  deps.waker.wake("events")
  return answer(deps, call, created)
}

export async function replaySnapshot(deps: ApiDeps, call: CreateCall, { made, body }: Made): Promise<Answer> {
  const snapshot = await findSnapshot(deps.db, made["snapshotId"] ?? "")
  return snapshot === undefined ? { status: 202, body } : answer(deps, call, snapshot)
}

/** Checks the request in the contract's order and returns the row to insert. */
async function judge(
  deps: ApiDeps,
  { params: { id = "" }, body, identity, caller }: CreateCall,
): Promise<NewSnapshot> {
  const instance = await resolveInstance(deps.db, id)
  checkCompression(body.kind, body.compression)
  if (body.kind === "Stopped" && body.capture === "live")
    throw new StillframeError(
      "invalid_request",
      '"capture": "live" is for Standby snapshots only, because a stopped instance has no memory. Omit it',
    )
  requireHost(instance)
  checkState(body.kind, instance)
  if (body.kind === "Stopped" && instance.attached !== null)
    throw new StillframeError(
      "not_supported",
      "the attached VM has ended, and its disks belong to its owner. Take a Standby snapshot while it runs",
    )
  if (body.capture === "live") await requireLiveCapture(deps.db, instance)
  return {
    kind: body.kind,
    name: body.name,
    tags: body.tags,
    capture: body.capture,
    compression:
      body.kind === "Standby"
        ? effectiveCompression(body.compression, instance.snapshot_policy?.compression, deps.compression)
        : undefined,
    queue: captureQueue(instance.host),
    pool: instance.pool,
    createTry: identity.createTry,
    caller,
    instance,
  }
}

async function insert(
  deps: ApiDeps,
  { identity }: CreateCall,
  requested: NewSnapshot,
): Promise<SnapshotRecord> {
  const { keyed, createTry } = identity
  if (keyed !== undefined) {
    const { row } = await once(deps, identity, async (tx) => {
      const row = await insertSnapshot(tx, requested)
      return { row, made: { snapshotId: row.id }, body: snapshotResource(row) }
    })
    return row
  }
  if (createTry === undefined || createTry.retry === 0) return insertSnapshot(deps.db, requested)
  return inTransaction(deps.db, async (tx) => {
    // The try before this one may commit just now.
    await lockTries(tx, createTry)
    return (await findEarlierTry(tx, createTry)) ?? (await insertSnapshot(tx, requested))
  })
}

function checkCompression(kind: SnapshotKind, compression: CompressionConfig | undefined): void {
  if (compression === undefined) return
  const mistake = compressionMistake(compression)
  if (mistake !== undefined) throw new StillframeError("invalid_snapshot_compression", mistake)
  if (kind === "Stopped" && compression.enabled)
    throw new StillframeError("invalid_request", "compression is only supported for standby snapshots")
}

function checkState(kind: SnapshotKind, instance: InstanceRow): void {
  if (mayCapture(kind, instance.state, instance.attached !== null)) return
  const required = captureStates[kind].join(" or ")
  throw new StillframeError(
    "conflict",
    `invalid state transition: ${kind.toLowerCase()} snapshot requires source in ${required}, got ${whyIn(instance)}`,
  )
}

async function answer(
  deps: ApiDeps,
  { prefer, identity, signal }: CreateCall,
  created: SnapshotRecord,
): Promise<Answer> {
  const sync = deps.snapshotCreate === "sync"
  const timeoutMs = heldMs(prefer, { seconds: sync ? waitSecondsMax : 0 })
  let snapshot: SnapshotRecord | undefined = created
  if (timeoutMs > 0 && isUnderWay(created)) {
    const look = async (): Promise<true | undefined> => {
      const current = await findSnapshot(deps.db, created.id)
      snapshot = current
      // Without its host the capture waits longer than any answer may.
      return current === undefined || !isUnderWay(current) || !current.host_up || undefined
    }
    await waitUntil(deps, look, { timeoutMs, signal })
  }
  if (snapshot === undefined)
    return problem("conflict", "the snapshot was deleted before it was captured", { retry: false })
  // No answer yet, in the mode where an answer is the point in time: the client's retry joins this snapshot.
  if (sync && timeoutMs > 0 && isUnderWay(snapshot))
    return problem("timeout", `snapshot ${snapshot.id} is not captured yet; the same request again waits on`)
  return {
    ...result(snapshot),
    ...(identity.createTry !== undefined && { onSent: () => deps.answered.note(created.id) }),
  }
}

function result(snapshot: SnapshotRecord): Answer {
  if (snapshot.status === "failed") return failedWork(snapshot)
  const headers = { Location: `/snapshots/${snapshot.id}` }
  return { status: snapshot.status === "ready" ? 201 : 202, body: snapshotResource(snapshot), headers }
}

function isUnderWay({ status }: SnapshotRecord): boolean {
  return status === "queued" || status === "capturing"
}
