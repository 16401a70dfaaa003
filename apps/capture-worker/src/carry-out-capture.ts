import { mkdir, readdir, rm, stat } from "node:fs/promises"
import { uptime } from "node:os"
import { join } from "node:path"
import { sha256File } from "@stillframe/codec/hash"
import { StillframeError } from "@stillframe/domain/errors"
import { layerNames, linkFiles, sealLayers } from "@stillframe/hypervisors/layers"
import { immutableNames } from "@stillframe/hypervisors/prepare-launch"
import { identifyProcess } from "@stillframe/hypervisors/processes"
import { captureQemu, type Capture } from "@stillframe/hypervisors/qemu-capture"
import { syncFile } from "@stillframe/storage/durable"
import {
  generationDir,
  instanceDir,
  manifestName,
  payloadDir,
  rawMemoryName,
  snapshotDir,
} from "@stillframe/storage/layout"
import { writeManifest, type Manifest, type ManifestFile } from "@stillframe/storage/manifest"
import { readIntent, removeIntent, writeIntent, type PauseIntent } from "./intent.ts"
import type { CaptureOrder } from "./orders.ts"
import { leaveAsFound } from "./takeover.ts"

/** Less than this left of the lease, and the VM is not paused any more. */
const leaseLeftMinMs = 10_000
/** What the captor has beyond the pause limit to resume the VM by itself, before the host's sweep kills it. */
const resumeGraceSeconds = 5

interface Captor {
  readonly signal: AbortSignal
  readonly report: (progress: number) => void
  readonly leaseRemainingMs: () => number
}

/** Captures a VM and seals the payload: when it resolves, everything is on the device and the manifest says so. */
export async function carryOutCapture(order: CaptureOrder, captor: Captor): Promise<Manifest> {
  const dir = payloadDir(order.storageDir, order.snapshotId, order.token)
  await removeUnsealed(snapshotDir(order.storageDir, order.snapshotId))
  await mkdir(dir, { recursive: true, mode: 0o700 })
  try {
    const capture = await pauseAndSave(order, dir, captor)
    captor.signal.throwIfAborted()
    return await seal(order, dir, capture)
  } catch (error) {
    await rm(dir, { recursive: true, force: true })
    throw captor.signal.aborted ? cancelled(error) : error
  }
}

async function pauseAndSave(order: CaptureOrder, dir: string, captor: Captor): Promise<Capture> {
  const home = instanceDir(order.dataDir, order.instanceId)
  try {
    const capture = await captureQemu({
      dir: generationDir(order.dataDir, order.instanceId, order.generation),
      memoryFile: join(dir, rawMemoryName),
      qemuImg: order.qemu.qemuImg,
      pauseExpectedMs: order.pauseExpectedMs,
      pauseLimitMs: order.pauseLimitMs,
      signal: captor.signal,
      onProgress: (bytes) => captor.report(Math.min(1, bytes / (order.launch.memoryMib * 1024 ** 2))),
      beforePause: async ({ wasRunning }) => {
        await writeIntent(home, await intentOf(order, wasRunning))
        if (captor.leaseRemainingMs() < leaseLeftMinMs)
          throw new StillframeError("lease_lost", "too little is left of the lease to pause the VM")
      },
    })
    await removeIntent(home)
    return capture
  } catch (error) {
    const intent = await readIntent(home)
    if (intent !== undefined) {
      // Whatever went wrong, this process leaves the VM as it found it, or leaves the intent for the host's sweep.
      await leaveAsFound(order.dataDir, intent)
      await removeIntent(home)
    }
    throw error
  }
}

async function intentOf(order: CaptureOrder, wasRunning: boolean): Promise<PauseIntent> {
  const captor = await identifyProcess(process.pid)
  if (captor === undefined) throw new StillframeError("internal_error", "/proc does not show this process")
  const { clusterId, instanceId, generation, operationId, token, snapshotId } = order
  const now = uptime() + resumeGraceSeconds
  const limitUptime = now + order.pauseLimitMs / 1_000
  const deadlineUptime = now + order.pauseExpectedMs / 1_000
  return {
    clusterId,
    instanceId,
    generation,
    operationId,
    token,
    snapshotId,
    captor,
    wasRunning,
    deadlineUptime,
    limitUptime,
  }
}

async function seal(order: CaptureOrder, dir: string, capture: Capture): Promise<Manifest> {
  const source = generationDir(order.dataDir, order.instanceId, order.generation)
  const names = immutableNames(order.launch, capture.disks)
  await linkFiles(names, source, dir, new AbortController().signal)
  await sealLayers(capture.disks, dir)

  const layers = new Set(layerNames(capture.disks))
  // Side by side: while one waits for the device, another is hashed.
  const files = await Promise.all([
    sealFile(dir, rawMemoryName, "memory"),
    ...[...new Set(names)].map((name) =>
      name.endsWith(".base")
        ? describeBase(dir, name)
        : sealFile(dir, name, layers.has(name) ? "disk" : "boot"),
    ),
  ])

  const manifest: Manifest = {
    format: 1,
    snapshot_id: order.snapshotId,
    kind: "Standby",
    token: order.token,
    source_instance: { id: order.instanceId, name: order.instanceName },
    hypervisor: { name: "qemu", version: order.hypervisorVersion },
    launch: { ...order.launch },
    disks: capture.disks.map((disk) => ({ ...disk })),
    captured_at: capture.capturedAt.toISOString(),
    pause_ms: capture.pauseMs,
    files,
  }
  await writeManifest(dir, manifest)
  return manifest
}

async function sealFile(dir: string, name: string, role: ManifestFile["role"]): Promise<ManifestFile> {
  const path = join(dir, name)
  const [{ sha256, bytes }] = await Promise.all([
    sha256File(path, { signal: new AbortController().signal }),
    syncFile(path),
  ])
  return { name, role, bytes, sha256 }
}

/** The caller's own file: known by its size and times in `disks`, and perhaps far too large to read here. */
async function describeBase(dir: string, name: string): Promise<ManifestFile> {
  return { name, role: "base", bytes: (await stat(join(dir, name))).size }
}

/** What earlier tries left: nothing names it, and their captors are dead, or the lock would not be ours. */
async function removeUnsealed(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  for (const token of await readdir(dir)) {
    const names = await readdir(join(dir, token))
    if (!names.includes(manifestName)) await rm(join(dir, token), { recursive: true, force: true })
  }
}

function cancelled(cause: unknown): StillframeError {
  return new StillframeError("cancelled", "the capture was cancelled and the VM resumed", { cause })
}
