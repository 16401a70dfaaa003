import { createReadStream } from "node:fs"
import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { decompressFrames } from "@stillframe/codec/decompress"
import { StillframeError } from "@stillframe/domain/errors"
import { assertSourcesUnchanged, type Disk } from "@stillframe/hypervisors/disks"
import { findQemu } from "@stillframe/hypervisors/find-process"
import { addOverlays, linkFiles } from "@stillframe/hypervisors/layers"
import { immutableNames, prepareLaunch, startGuest } from "@stillframe/hypervisors/prepare-launch"
import { endProcess, type ProcessIdentity } from "@stillframe/hypervisors/processes"
import { launchQemu, type LaunchOptions } from "@stillframe/hypervisors/qemu-process"
import { restoreQemu } from "@stillframe/hypervisors/qemu-restore"
import { generationDir, instanceDir, rawMemoryName } from "@stillframe/storage/layout"
import { readManifest } from "@stillframe/storage/manifest"
import type { EndOrder, ForkOrder, LaunchOrder } from "./orders.ts"

const endGraceMs = 2_000
/** Whole streams of a raw memory file; small pieces cost more calls than they save memory. */
const readBytes = 1024 ** 2

/** Starts a VM from the caller's files. When it fails, nothing of the instance is left on the host. */
export async function carryOutLaunch(order: LaunchOrder, signal: AbortSignal): Promise<ProcessIdentity> {
  return inNewDirectory(order, async (dir) => {
    const rules = { hostPaths: order.hostPaths, dataDir: order.dataDir }
    const disks = await prepareLaunch(order.launch, { dir, qemuImg: order.qemu.qemuImg, signal, rules })
    return launchQemu({ dir, disks, signal, ...processOptions(order) })
  })
}

/** Starts a new VM from a snapshot's memory and layers. When it fails, nothing of the instance is left on the host. */
export async function carryOutFork(order: ForkOrder, signal: AbortSignal): Promise<ProcessIdentity> {
  return inNewDirectory(order, async (dir) => {
    const frozen = (await readManifest(order.payloadDir)).disks as unknown as Disk[]
    await assertSourcesUnchanged(order.payloadDir, frozen)
    await linkFiles(immutableNames(order.launch, frozen), order.payloadDir, dir, signal)
    const disks = await addOverlays(frozen, { dir, qemuImg: order.qemu.qemuImg, signal })
    const memory = readMemory(join(order.payloadDir, order.memoryFile), signal)
    return restoreQemu({ dir, disks, signal, memory, ...processOptions(order) })
  })
}

/** Ends the VM's process, however it is found, and removes its files. Done twice it is done. */
export async function carryOutEnd(order: EndOrder): Promise<null> {
  const running = await findQemu(identityOf(order))
  if (running !== undefined) await endProcess(running, { graceMs: endGraceMs })
  await rm(instanceDir(order.dataDir, order.instanceId), { recursive: true, force: true })
  return null
}

/** How the host finds the process again: by cluster and instance, never by the binary's name. */
function identityOf({ clusterId, instanceId }: { clusterId: string; instanceId: string }): string {
  return `stillframe-${clusterId}-${instanceId}`
}

async function inNewDirectory(
  order: LaunchOrder | ForkOrder,
  start: (dir: string) => Promise<ProcessIdentity>,
): Promise<ProcessIdentity> {
  const dir = generationDir(order.dataDir, order.instanceId, order.generation)
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const identity = await start(dir)
    await startGuest(dir)
    return identity
  } catch (error) {
    await carryOutEnd({ ...order, kind: "end" })
    throw error
  }
}

function processOptions(
  order: LaunchOrder | ForkOrder,
): Pick<LaunchOptions, "binary" | "config" | "identity" | "runAs"> {
  const { binary, runAs } = order.qemu
  return { binary, config: order.launch, identity: identityOf(order), ...(runAs !== undefined && { runAs }) }
}

/** The guest's memory in order, from the raw file or straight from the frames: nothing is unpacked to disk. */
function readMemory(path: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
  if (path.endsWith(`/${rawMemoryName}`)) return createReadStream(path, { highWaterMark: readBytes, signal })
  if (/\.(zst|lz4)$/.test(path)) return decompressFrames({ path, threads: decompressThreads, signal })
  throw new StillframeError("corrupted", `${path} is no memory file of ours`)
}

const decompressThreads = 2
