import { readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { compressFile } from "@stillframe/codec/compress"
import { verifyFile } from "@stillframe/codec/verify"
import { inTransaction } from "@stillframe/db/client"
import { appendSnapshotEvent } from "@stillframe/db/events"
import type { ClaimedOperation } from "@stillframe/db/operations"
import { progressWriter } from "@stillframe/db/progress"
import { finishDone, type OperationContext, type OperationHandler } from "@stillframe/db/run-operation"
import { failCompression, findSnapshot, publishCompressed, type SnapshotRow } from "@stillframe/db/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { operationAttempts } from "@stillframe/domain/operation"
import { syncDir, syncFile } from "@stillframe/storage/durable"
import { compressedMemoryName, payloadDir, rawMemoryName } from "@stillframe/storage/layout"
import { measureDir } from "@stillframe/storage/space"
import { removeRawFiles } from "./pool-sweep.ts"
import type { Worker } from "./worker.ts"

/** Of the work, how much is compressing; the rest is reading back. Roughly as their times stand to each other. */
const compressShare = 0.7

/**
 * Turns a snapshot's raw memory file into frames, reads them back from the device against the hash that was taken at
 * capture, and only then names them in the row. The raw file goes afterwards, by a step of its own.
 */
export function compressHandler(worker: Worker): OperationHandler {
  return {
    async run(context) {
      const { operation } = context
      if (operation.attempt > operationAttempts.compress.max)
        throw new StillframeError(
          "lease_lost",
          "the worker died in each try to compress the memory; see its log",
        )
      const snapshot = await findSnapshot(worker.db, operation.snapshotId ?? "")
      if (snapshot === undefined || snapshot.compression_state !== "compressing")
        throw new StillframeError("cancelled", "the snapshot does not wait for compression any more")
      const dir = payloadDir(worker.config.storageDir, snapshot.id, snapshot.payload ?? "")
      await removeStale(dir, snapshot)
      const memoryFile = compressedMemoryName(operation.token, snapshot.compression?.algorithm ?? "zstd")
      try {
        const sizes = await compressAndVerify(worker, context, { snapshot, dir, memoryFile })
        await publish(worker, operation, { snapshot, dir, memoryFile, ...sizes })
      } catch (error) {
        await rm(join(dir, memoryFile), { force: true })
        throw error
      }
      // Before the raw file goes: somebody waits to be told, nobody for the room.
      worker.committed()
      // The pool's sweep comes again; the operation is done either way.
      await removeRawFiles(worker).catch((err: unknown) =>
        worker.log.warn({ err }, "raw memory not removed yet"),
      )
    },
    async failed(tx, operation, error) {
      const snapshot = await failCompression(tx, operation.snapshotId ?? "", error.message)
      if (snapshot === undefined) return
      await appendSnapshotEvent(tx, "snapshot.compression_failed", snapshot)
      // The snapshot is whole and usable: what is missing is only that it became smaller.
      await appendSnapshotEvent(tx, "snapshot.completed", snapshot)
    },
  }
}

interface Target {
  readonly snapshot: SnapshotRow
  readonly dir: string
  readonly memoryFile: string
}

async function compressAndVerify(
  { config, db, log }: Worker,
  { signal }: OperationContext,
  { snapshot, dir, memoryFile }: Target,
): Promise<{ uncompressedBytes: number; compressedBytes: number }> {
  const { compression, memory_sha256: sha256 } = snapshot
  if (compression === null || sha256 === null)
    throw new StillframeError("internal_error", "the snapshot's row lacks its compression or its hash")
  const report = progressWriter(db, snapshot.id, (err) =>
    log.warn({ err, snapshotId: snapshot.id }, "progress not written"),
  )
  const { threads } = config
  const startedAt = performance.now()
  const sizes = await compressFile({
    source: join(dir, rawMemoryName),
    destination: join(dir, memoryFile),
    algorithm: compression.algorithm,
    level: compression.level,
    threads,
    signal,
    sync: false,
    onProgress: (done, total) => report((done / total) * compressShare),
  })
  const compressedAt = performance.now()
  const { uncompressedBytes } = sizes
  // Each piece is on the device before it is read from there, so the rest may go there at the same time.
  const verified = verifyFile({
    path: join(dir, memoryFile),
    sha256,
    uncompressedBytes,
    threads,
    signal,
    onProgress: (done, total) => report(compressShare + (done / total) * (1 - compressShare)),
  })
  const [{ fromDevice }] = await Promise.all([verified, syncFile(join(dir, memoryFile))])
  await syncDir(dir)
  if (!fromDevice)
    log.warn({ snapshotId: snapshot.id }, "the pool's file system has no O_DIRECT: read back from the cache")
  log.info(
    {
      snapshotId: snapshot.id,
      ...sizes,
      durationMs: compressedAt - startedAt,
      verifyMs: performance.now() - compressedAt,
    },
    "memory compressed",
  )
  return sizes
}

async function publish(
  { db }: Worker,
  operation: ClaimedOperation,
  target: Target & { uncompressedBytes: number; compressedBytes: number },
): Promise<void> {
  const sizes = await measureDir(target.dir, { without: rawMemoryName })
  await inTransaction(db, async (tx) => {
    const compressed = await publishCompressed(tx, target.snapshot.id, { ...target, ...sizes })
    await finishDone(tx, operation)
    if (compressed === undefined) throw new StillframeError("cancelled", "the snapshot was deleted meanwhile")
    await appendSnapshotEvent(tx, "snapshot.compressed", compressed)
    await appendSnapshotEvent(tx, "snapshot.completed", compressed)
  })
}

/** What tries of workers that died have left: the row does not name it, and their tokens are no longer current. */
async function removeStale(dir: string, snapshot: SnapshotRow): Promise<void> {
  for (const name of await readdir(dir)) {
    if (name.startsWith(`${rawMemoryName}.`) && name !== snapshot.memory_file) await rm(join(dir, name))
  }
}
