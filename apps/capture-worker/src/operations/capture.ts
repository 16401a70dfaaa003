import { join } from "node:path"
import { inTransaction, type OwnedDatabase } from "@stillframe/db/client"
import { appendSnapshotEvent } from "@stillframe/db/events/events"
import { findInstance, type InstanceRow } from "@stillframe/db/instances/instances"
import { createOperation, type ClaimedOperation } from "@stillframe/db/operations/operations"
import { progressWriter } from "@stillframe/db/operations/progress"
import {
  finishDone,
  type OperationContext,
  type OperationHandler,
} from "@stillframe/db/operations/run-operation"
import {
  failSnapshot,
  handBackCapture,
  publishCapture,
  startCapture,
  type SnapshotRow,
} from "@stillframe/db/snapshots/snapshots"
import { reserveSpace } from "@stillframe/db/snapshots/space"
import { StillframeError } from "@stillframe/domain/errors"
import { captureStates, mayCapture, type Hypervisor } from "@stillframe/domain/instance"
import { operationAttempts } from "@stillframe/domain/operation"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { compressQueue } from "@stillframe/domain/queues"
import { unlaunchable } from "@stillframe/domain/restorable"
import { counted } from "@stillframe/domain/text/counted"
import { payloadDir, snapshotDir, standbyDir } from "@stillframe/storage/layout"
import { hashManifest, memoryEntry, sealedAttempt, type Manifest } from "@stillframe/storage/manifest"
import { freeBytes, measureDir } from "@stillframe/storage/space"
import type { CaptureSource } from "../executor/orders.ts"
import { growthOf, takeOver } from "../pause/takeover.ts"
import type { Worker } from "../worker.ts"
import { attachedInstance } from "./attached-instance.ts"
import { savingRoom, withHostRoom } from "./host-room.ts"
import { saveOrder } from "./vm-order.ts"

/** Beyond the guest's RAM: device state, overlays' headers, the manifest. */
const spaceMarginBytes = 64 * 1024 ** 2

/**
 * Captures an instance in the state it is in and publishes the payload. A sealed attempt whose worker died is
 * published, not captured again.
 */
export function captureHandler(worker: Worker): OperationHandler {
  return {
    run: (context) =>
      // Before the snapshot is said to be capturing: it stays queued while its pool is away.
      worker.pool.during(async () => {
        const snapshot = await begin(worker, context.operation)
        const manifest =
          (await sealedAttempt(snapshotDir(worker.config.storageDir, snapshot.id))) ??
          (await capture(worker, context, snapshot))
        await publish(worker, context.operation, snapshot, manifest)
      }),
    async failed(tx, operation, error) {
      const snapshot = await failSnapshot(tx, operation.snapshotId ?? "", error)
      if (snapshot !== undefined) await appendSnapshotEvent(tx, "snapshot.failed", snapshot)
    },
    async handedBack(tx, operation) {
      await handBackCapture(tx, operation.snapshotId ?? "")
    },
  }
}

async function begin({ db, config }: Worker, operation: ClaimedOperation): Promise<SnapshotRow> {
  // The host may have got another pool since the request.
  const snapshot = await startCapture(db, operation.snapshotId ?? "", config.pool)
  if (snapshot === undefined) throw new StillframeError("cancelled", "the snapshot was deleted meanwhile")
  return snapshot
}

async function capture(worker: Worker, context: OperationContext, snapshot: SnapshotRow): Promise<Manifest> {
  const { operation, signal, stopping } = context
  if (operation.attempt > operationAttempts.capture.max)
    throw new StillframeError(
      "hypervisor_gone",
      `${operationAttempts.capture.max} attempts to capture the VM ended without a result. See the log of the capture-worker, then try again`,
    )
  const instance = await sourceOf(worker.db, snapshot)
  await assertRoom(worker, operation, snapshot, instance)
  const grow = growthOf(worker.grown, instance.id)
  const trouble = openTrouble(worker.log, { lost: `progress of snapshot ${snapshot.id} not written` })
  const write = progressWriter(worker.db, snapshot.id, trouble.failed)
  const order = {
    kind: "capture" as const,
    ...saveOrder(worker, context, instance),
    snapshotId: snapshot.id,
    source: captureSource(worker, instance),
    mode: snapshot.capture,
  }
  const options = {
    signal,
    stopping,
    onProgress(progress: number) {
      grow(progress)
      write(progress)
    },
    onLost: async () => {
      await takeOver(worker.config.dataDir, instance.id)
    },
  }
  const { bytes, ...room } = await savingRoom(worker.config, instance, order.hypervisor)
  const needed = order.source.state === "Running" ? bytes : 0
  return withHostRoom(worker, { ...room, bytes: needed }, () => worker.captors.order(order, options))
}

function captureSource({ config }: Worker, instance: InstanceRow): CaptureSource {
  const vm = attachedInstance(instance)
  if (vm !== undefined) return { state: "Attached", vm, hostPaths: [config.imagesDir, ...config.hostPaths] }
  if (instance.state === "Running") return { state: "Running" }
  if (instance.state === "Stopped") return { state: "Stopped" }
  const images = standbyDir(config.dataDir, instance.id)
  return { state: "Standby", payloadDir: join(images, instance.standby_payload ?? "") }
}

async function sourceOf(db: OwnedDatabase, snapshot: SnapshotRow): Promise<InstanceRow> {
  const instance = await findInstance(db, snapshot.source_instance_id)
  if (instance === undefined) throw new StillframeError("not_found", "the instance was deleted meanwhile")
  if (!mayCapture(snapshot.kind, instance.state, instance.attached !== null))
    throw new StillframeError(
      "conflict",
      `the instance is ${instance.state}, not ${captureStates[snapshot.kind].join(" or ")}`,
    )
  return instance
}

async function assertRoom(
  { db, config }: Worker,
  operation: ClaimedOperation,
  snapshot: SnapshotRow,
  instance: InstanceRow,
): Promise<void> {
  const free = await freeBytes(config.storageDir)
  const memoryBytes = snapshot.kind === "Standby" ? instance.memory_mib * 1024 ** 2 : 0
  const diskBytes = attachedInstance(instance)?.diskBytesMax ?? 0
  const bytes = memoryBytes + diskBytes + spaceMarginBytes
  const request = {
    operationId: operation.id,
    pool: snapshot.pool,
    bytes,
    freeBytes: free,
    floorBytes: config.spaceFloorBytes,
  }
  if (await reserveSpace(db, request)) return
  throw new StillframeError(
    "insufficient_storage",
    `the storage pool ${snapshot.pool} has ${counted(free, "byte")} free; a snapshot of this VM may take ${bytes}, and ${config.spaceFloorBytes} stay free. Delete snapshots or enlarge the pool`,
  )
}

async function publish(
  { db, config, pool }: Worker,
  operation: ClaimedOperation,
  snapshot: SnapshotRow,
  manifest: Manifest,
): Promise<void> {
  const memory = memoryEntry(manifest)
  const { opaque_memory: incompressible, not_restorable: option } = manifest
  const compress = snapshot.compression !== null && incompressible === undefined
  const dir = payloadDir(config.storageDir, snapshot.id, manifest.token)
  const [sizes, manifestSha256] = await Promise.all([measureDir(dir), hashManifest(dir)])
  // Files that were written while the disk was away lie below its mount point.
  await pool.identify()
  await inTransaction(db, async (tx) => {
    const ready = await publishCapture(tx, snapshot.id, {
      payload: manifest.token,
      hypervisor: manifest.hypervisor.name as Hypervisor,
      memoryFile: memory?.name ?? null,
      memorySha256: memory?.sha256 ?? null,
      manifestSha256,
      ...sizes,
      pauseMs: manifest.pause_ms,
      capturedAt: new Date(manifest.captured_at),
      compress,
      ...(incompressible !== undefined && { incompressible }),
      ...(option !== undefined && { unrestorable: unlaunchable(option) }),
    })
    await finishDone(tx, operation)
    if (ready === undefined) throw new StillframeError("cancelled", "the snapshot was deleted meanwhile")
    if (compress)
      await createOperation(tx, {
        kind: "compress",
        queue: compressQueue(snapshot.pool),
        snapshotId: snapshot.id,
      })
    await appendSnapshotEvent(tx, "snapshot.captured", ready)
    if (!compress) await appendSnapshotEvent(tx, "snapshot.completed", ready)
  })
}
