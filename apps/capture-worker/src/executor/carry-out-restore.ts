import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { diskHash, sha256File } from "@stillframe/codec/hash"
import { StillframeError } from "@stillframe/domain/errors"
import { currentSources, writeDisks, type Disk } from "@stillframe/hypervisors/disks/disks"
import { imagesFor } from "@stillframe/hypervisors/disks/image-store"
import type { Hypervisor, VmLaunch } from "@stillframe/hypervisors/hypervisor"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { generationDir, rawMemoryName, standbyDir } from "@stillframe/storage/layout"
import { memoryEntry, readManifest, writeManifest, type Manifest } from "@stillframe/storage/manifest"
import { capturedMemory, type MemoryPlace } from "./captured-memory.ts"
import { boot, carryOutEnd, whoseVm } from "./carry-out-launch.ts"
import { claimVmUser } from "./claim-vm-user.ts"
import type { RestoreOrder } from "./orders.ts"
import { linkPayload, syncPayload } from "./seal.ts"

/**
 * Builds a new generation of an instance from a payload, which it only reads: files by links, and for target
 * Running a VM that is loaded and still paused. When it fails, nothing of the generation, or of a fork's
 * instance, is left on the host.
 */
export async function carryOutRestore(
  order: RestoreOrder,
  signal: AbortSignal,
): Promise<ProcessIdentity | null> {
  try {
    const manifest = await readManifest(order.payloadDir, order.manifestSha256)
    if (order.target === "Running" && manifest.kind === "Standby") assertLoads(order, manifest)
    const frozen = await disksOf(order, manifest, signal)
    if (order.target === "Standby") return await keepMemory(order, manifest, signal)
    // One that is to be stopped gets its user when it starts.
    await using user = order.target === "Running" ? await claimVmUser(order) : undefined
    const hypervisor = await hypervisorOf(user?.hypervisor ?? order.hypervisor)
    const dir = generationDir(order.dataDir, order.instanceId, order.generation)
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const store = await imagesFor(dir, order)
    const place = { config: order.launch, from: order.payloadDir, dir, store, signal }
    const brought = await hypervisor.bring(frozen, place)
    if (order.target === "Running")
      return await startIn(dir, { order, hypervisor, manifest, frozen: brought, signal })
    await writeDisks(dir, brought)
    return null
  } catch (error) {
    // A fork has nothing else on the host; an instance that is restored in place has its disks.
    await carryOutEnd({ ...order, kind: "end", remove: order.isFork ? "instance" : "generation" })
    throw error
  }
}

/**
 * An earlier version's snapshot leans on callers' files, which must be unchanged: by their times, else by
 * their hash.
 */
async function disksOf(order: RestoreOrder, manifest: Manifest, signal: AbortSignal): Promise<Disk[]> {
  const { payloadDir, baseSha256 = {} } = order
  return currentSources(payloadDir, manifest.disks as unknown as Disk[], async (link) => {
    const captured = baseSha256[link]
    const found =
      captured !== undefined && (await diskHash(join(payloadDir, link), { signal, expected: captured }))
    return found !== false && found.sha256 === captured
  })
}

function assertLoads({ hypervisor: { name, loadsOnly } }: RestoreOrder, { hypervisor }: Manifest): void {
  if (loadsOnly === undefined || loadsOnly === hypervisor.version) return
  throw new StillframeError(
    "not_supported",
    `the snapshot was made by ${name} ${hypervisor.version}, and this host has ${loadsOnly}, which can't load it; bring that version back, or restore its disks with target_state Stopped`,
  )
}

async function startIn(
  dir: string,
  {
    order,
    hypervisor,
    manifest,
    frozen,
    signal,
  }: {
    order: RestoreOrder
    hypervisor: Hypervisor
    manifest: Manifest
    frozen: readonly Disk[]
    signal: AbortSignal
  },
): Promise<ProcessIdentity> {
  const disks = await hypervisor.top(frozen, { dir, signal })
  const vm = { dir, disks, signal, ...whoseVm(order) }
  if (manifest.kind === "Stopped") return await boot(hypervisor, vm, order, { startGuest: order.isFork })
  const process = await loadMemory(order, { hypervisor, manifest, vm })
  if (order.isFork) await hypervisor.begin(dir)
  return process
}

/**
 * No guest goes on with memory that is not what was captured: frames have checksums, any other file is hashed
 * while it is loaded.
 */
async function loadMemory(
  place: MemoryPlace,
  { hypervisor, manifest, vm }: { hypervisor: Hypervisor; manifest: Manifest; vm: VmLaunch },
): Promise<ProcessIdentity> {
  const [loaded, hashed] = await Promise.allSettled([
    hypervisor.restore({ ...vm, memory: capturedMemory(place, manifest, vm.signal) }),
    assertAsCaptured(place, manifest, vm.signal),
  ])
  // If both fail, damage is the reason why the memory could not be loaded.
  if (hashed.status === "rejected" && isDamage(hashed.reason)) throw hashed.reason
  if (loaded.status === "rejected") throw loaded.reason
  if (hashed.status === "rejected") throw hashed.reason
  return loaded.value
}

function isDamage(error: unknown): boolean {
  return error instanceof StillframeError && error.code === "corrupted"
}

async function assertAsCaptured(
  { payloadDir, memoryFile }: MemoryPlace,
  manifest: Manifest,
  signal: AbortSignal,
): Promise<void> {
  const memory = memoryEntry(manifest)
  const files =
    memory === undefined
      ? manifest.files.filter(({ role }) => role === "state")
      : [memory].filter(() => memoryFile === rawMemoryName)
  for (const { name, sha256: captured } of files) {
    const { sha256 } = await sha256File(join(payloadDir, name), { signal })
    if (sha256 !== captured)
      throw new StillframeError("corrupted", `${name} has the SHA-256 ${sha256} instead of ${captured}`)
  }
}

/** The image of an instance in Standby: the whole payload, its memory in whatever form it lies there. */
async function keepMemory(order: RestoreOrder, manifest: Manifest, signal: AbortSignal): Promise<null> {
  const { memoryFile } = order
  if (manifest.kind === "Stopped")
    throw new StillframeError("invalid_request", "a snapshot without memory cannot be restored into Standby")
  const dir = join(standbyDir(order.dataDir, order.instanceId), order.token)
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const files = manifest.files.map((file) =>
    file.role === "memory" ? { ...file, name: memoryFile ?? file.name } : file,
  )
  const names = files.map(({ name }) => name)
  await linkPayload(files, { from: order.payloadDir, to: dir, store: await imagesFor(dir, order), signal })
  await syncPayload(dir, names)
  const { snapshot_id: _, ...rest } = manifest
  await writeManifest(dir, { ...rest, token: order.token, files })
  return null
}
