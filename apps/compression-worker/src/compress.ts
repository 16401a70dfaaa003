import { readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { compressFile } from "@stillframe/codec/compress"
import { decompressFile } from "@stillframe/codec/decompress"
import { verifyFile } from "@stillframe/codec/verify"
import { inTransaction } from "@stillframe/db/client"
import { appendSnapshotEvent } from "@stillframe/db/events/events"
import { compressParams, failCompression, publishCompressed } from "@stillframe/db/operations/compressions"
import type { ClaimedOperation } from "@stillframe/db/operations/operations"
import { progressWriter } from "@stillframe/db/operations/progress"
import {
  finishDone,
  type OperationContext,
  type OperationHandler,
} from "@stillframe/db/operations/run-operation"
import { hasReaders } from "@stillframe/db/snapshots/readers"
import { findSnapshot, requireSound, type SnapshotRow } from "@stillframe/db/snapshots/snapshots"
import { requestVerification } from "@stillframe/db/snapshots/verifications"
import { StillframeError } from "@stillframe/domain/errors"
import { operationAttempts } from "@stillframe/domain/operation"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { syncDir, syncFile } from "@stillframe/storage/durable"
import {
  compressedMemoryName,
  isMemoryFile,
  payloadDir,
  payloadMode,
  rawMemoryName,
  unpackedMemoryName,
} from "@stillframe/storage/layout"
import { requireFile } from "@stillframe/storage/manifest"
import { measureDir } from "@stillframe/storage/space"
import { removeSupersededMemory } from "./pool-sweep.ts"
import type { GuardedWork } from "./stall-guard.ts"
import type { Worker } from "./worker.ts"

/** The share of the progress that is compressing, as measured; the rest is reading back. */
const compressShare = 0.7

/**
 * Turns a snapshot's memory into frames, reads them back from the device against the hash that was taken at
 * capture, and only then names them in the row. The file before goes afterwards, by a step of its own.
 */
export function compressHandler(worker: Worker): OperationHandler {
  return {
    run: (context) =>
      worker.guard.run(context.signal, (guarded) =>
        worker.pool.during(() => compress(worker, { ...context, ...guarded })),
      ),
    async failed(tx, operation, { code, message }) {
      const { again, before } = compressParams(operation)
      const snapshot = await failCompression(tx, operation.snapshotId ?? "", { message, before })
      if (snapshot === undefined) return
      // Is it what was captured that is damaged, or only what was made of it?
      if (code === "corrupted") await requestVerification(tx, snapshot)
      await appendSnapshotEvent(tx, "snapshot.compression_failed", snapshot)
      // The snapshot is whole and usable: what is missing is only that it became smaller.
      if (again !== true) await appendSnapshotEvent(tx, "snapshot.completed", snapshot)
    },
  }
}

type CompressContext = OperationContext & GuardedWork

async function compress(worker: Worker, context: CompressContext): Promise<void> {
  const { operation } = context
  const snapshot = await findSnapshot(worker.db, operation.snapshotId ?? "")
  if (snapshot === undefined || snapshot.compression_state !== "compressing")
    throw new StillframeError("cancelled", "the snapshot is not waiting for compression")
  requireSound(snapshot)
  const dir = payloadDir(worker.config.storageDir, snapshot.id, snapshot.payload ?? "")
  await requireFile(dir, snapshot.memory_file ?? rawMemoryName)
  await removeStale(worker, snapshot, dir)
  if (operation.attempt > operationAttempts.compress.max)
    throw new StillframeError(
      "lease_lost",
      "the compression-worker died in each attempt to compress the memory; see its log",
    )
  const memoryFile = compressedMemoryName(operation.token, snapshot.compression?.algorithm ?? "zstd")
  try {
    const sizes = await compressAndVerify(worker, context, { snapshot, dir, memoryFile })
    await publish(worker, operation, { snapshot, dir, memoryFile, ...sizes })
  } catch (error) {
    await rm(join(dir, memoryFile), { force: true })
    throw error
  }
  // Before the file goes: somebody waits to be told, nobody for the room.
  worker.committed()
  // The pool's sweep comes again; the operation is done either way.
  await removeSupersededMemory(worker).catch((err: unknown) =>
    worker.log.warn({ err }, "superseded memory not removed yet"),
  )
}

interface Target {
  readonly snapshot: SnapshotRow
  readonly dir: string
  readonly memoryFile: string
}

async function compressAndVerify(
  worker: Worker,
  context: CompressContext,
  { snapshot, dir, memoryFile }: Target,
): Promise<{ uncompressedBytes: number; compressedBytes: number }> {
  const { config, db, log } = worker
  const { signal, reached } = context
  const { compression, memory_sha256: sha256 } = snapshot
  if (compression === null || sha256 === null)
    throw new StillframeError("internal_error", "the snapshot's row lacks its compression or its hash")
  const trouble = openTrouble(log, { lost: `progress of snapshot ${snapshot.id} not written` })
  const report = progressWriter(db, snapshot.id, trouble.failed)
  const { threads } = config
  const startedAt = performance.now()
  await using raw = await rawMemory(worker, context, { snapshot, dir })
  const sizes = await compressFile({
    source: raw.path,
    destination: join(dir, memoryFile),
    algorithm: compression.algorithm,
    level: compression.level,
    mode: payloadMode,
    threads,
    signal,
    sync: false,
    onProgress(done, total) {
      reached(done)
      report((done / total) * compressShare)
    },
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
    onProgress(done, total) {
      reached(done)
      report(compressShare + (done / total) * (1 - compressShare))
    },
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

/** The uncompressed memory: the captured file, or one that is unpacked while it is needed. */
async function rawMemory(
  { config: { threads } }: Worker,
  { operation: { token }, signal, reached }: CompressContext,
  { snapshot, dir }: Omit<Target, "memoryFile">,
): Promise<AsyncDisposable & { readonly path: string }> {
  const source = join(dir, snapshot.memory_file ?? rawMemoryName)
  if (snapshot.memory_file === rawMemoryName) return { path: source, async [Symbol.asyncDispose]() {} }
  const path = join(dir, unpackedMemoryName(token))
  await decompressFile({
    source,
    destination: path,
    mode: payloadMode,
    threads,
    signal,
    sync: false,
    onProgress: reached,
  })
  return { path, [Symbol.asyncDispose]: () => rm(path, { force: true }) }
}

async function publish(
  { db, pool }: Worker,
  operation: ClaimedOperation,
  target: Target & { uncompressedBytes: number; compressedBytes: number },
): Promise<void> {
  const leaveOut = (name: string): boolean => isMemoryFile(name) && name !== target.memoryFile
  const sizes = await measureDir(target.dir, { leaveOut })
  await pool.identify()
  await inTransaction(db, async (tx) => {
    const compressed = await publishCompressed(tx, target.snapshot.id, { ...target, ...sizes })
    await finishDone(tx, operation)
    if (compressed === undefined) throw new StillframeError("cancelled", "the snapshot was deleted meanwhile")
    await appendSnapshotEvent(tx, "snapshot.compressed", compressed)
    if (compressParams(operation).again !== true)
      await appendSnapshotEvent(tx, "snapshot.completed", compressed)
  })
}

/**
 * Removes what tries of workers that died have left: the row does not name it, and their tokens are no longer
 * current. While somebody may still read an earlier form of the memory, all of it stays for the pool's sweep.
 */
async function removeStale({ db }: Worker, snapshot: SnapshotRow, dir: string): Promise<void> {
  if (snapshot.superseded && (await hasReaders(db, snapshot.id))) return
  for (const name of await readdir(dir)) {
    if (isMemoryFile(name) && name !== snapshot.memory_file) await rm(join(dir, name))
  }
}
