import { mkdir, readdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { monotonicMs } from "@stillframe/domain/postgres/database-clock"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { removeEmpty } from "@stillframe/storage/directory"
import { generationDir, manifestName, payloadDir, snapshotDir } from "@stillframe/storage/layout"
import { readManifest, requireFiles, sealedAttempt, type Manifest } from "@stillframe/storage/manifest"
import { requireDirectory } from "./carry-out-launch.ts"
import type { CaptureOrder } from "./orders.ts"
import { saveVm, type Captor } from "./save-vm.ts"
import { seal, sealCopy } from "./seal.ts"

/**
 * Captures a VM and seals the payload: when it resolves, everything is on the device and the manifest says
 * so.
 */
export async function carryOutCapture(order: CaptureOrder, captor: Captor): Promise<Manifest> {
  // It may have waited for its lock so long that the snapshot is deleted by now, and what it made would be
  // nobody's.
  if (captor.signal.aborted) throw cancelled(captor.signal.reason)
  const dir = payloadDir(order.storageDir, order.snapshotId, order.token)
  // The captor of an earlier try may have come to its end while this one waited for its lock.
  const sealed = await sealedAttempt(snapshotDir(order.storageDir, order.snapshotId))
  if (sealed !== undefined) return sealed
  await removeUnsealed(snapshotDir(order.storageDir, order.snapshotId))
  await mkdir(dir, { recursive: true, mode: 0o700 })
  try {
    return await payloadOf(order, dir, captor)
  } catch (error) {
    await rm(dir, { recursive: true, force: true })
    await removeEmpty(snapshotDir(order.storageDir, order.snapshotId))
    throw captor.signal.aborted ? cancelled(error) : error
  }
}

async function payloadOf(order: CaptureOrder, dir: string, captor: Captor): Promise<Manifest> {
  const { source } = order
  if (source.state === "Running" || source.state === "Attached") {
    const capture = await saveVm(order, captor, dir)
    return seal(order, dir, { kind: "Standby", ...capture, signal: captor.cancelled })
  }
  if (source.state === "Stopped") {
    const home = generationDir(order.dataDir, order.instanceId, order.generation)
    await requireDirectory(home)
    const disks = await (await hypervisorOf(order.hypervisor)).disksAtRest(home)
    return seal(order, dir, {
      kind: "Stopped",
      files: [],
      disks,
      capturedAtMs: monotonicMs(),
      pauseMs: 0,
      signal: captor.cancelled,
    })
  }
  const from = source.payloadDir
  const manifest = await readManifest(from)
  await requireFiles(from, manifest)
  return sealCopy(order, dir, { from, manifest })
}

/**
 * Leftovers of earlier tries: no row names them, and their captors are dead, because this one holds the lock.
 */
async function removeUnsealed(dir: string): Promise<void> {
  // Not its parent: where that is missing the pool's disk is away, and nothing is to be written below its
  // mount point.
  await mkdir(dir, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error
  })
  for (const token of await readdir(dir)) {
    const names = await readdir(join(dir, token))
    if (!names.includes(manifestName)) await rm(join(dir, token), { recursive: true, force: true })
  }
}

function cancelled(cause: unknown): StillframeError {
  return new StillframeError("cancelled", "the capture was cancelled and the VM resumed", { cause })
}
