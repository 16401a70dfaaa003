import { chmod, stat } from "node:fs/promises"
import { join } from "node:path"
import { decompressFile } from "@stillframe/codec/decompress"
import { diskHash, sha256File } from "@stillframe/codec/hash"
import { databaseTime, monotonicMs } from "@stillframe/domain/postgres/database-clock"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import { imagesFor, linkLayers, type ImageStore } from "@stillframe/hypervisors/disks/image-store"
import type { SavedFile } from "@stillframe/hypervisors/file-vmm/saved-files"
import { linkFiles } from "@stillframe/hypervisors/files/link-files"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { syncFile } from "@stillframe/storage/durable"
import { generationDir, payloadMode, rawMemoryName } from "@stillframe/storage/layout"
import { memoryEntry, writeManifest, type Manifest, type ManifestFile } from "@stillframe/storage/manifest"
import type { CaptureOrder, StandbyOrder } from "./orders.ts"

const decompressThreads = 2

/** Members of a payload's manifest beyond its order and files. */
interface Captured {
  readonly kind: Manifest["kind"]
  readonly files: readonly SavedFile[]
  readonly disks: readonly Disk[]
  /** By `monotonicMs`. */
  readonly capturedAtMs: number
  readonly pauseMs: number
  /** Absent for disks alone, which any version uses. */
  readonly hypervisorVersion?: string
}

/**
 * Brings the VM's frozen layers into `dir`, beside the memory where there is one, and seals it all: on the
 * device when it resolves.
 */
export async function seal(
  order: CaptureOrder | StandbyOrder,
  dir: string,
  { signal, ...captured }: Captured & { readonly signal: AbortSignal },
): Promise<Manifest> {
  const from = generationDir(order.dataDir, order.instanceId, order.generation)
  const attached = order.kind === "capture" && order.source.state === "Attached" ? order.source.vm : undefined
  const store = await imagesFor(dir, order)
  const place = { config: order.launch, from, dir, store, signal }
  const { disks, files: kept } = await (await hypervisorOf(order.hypervisor)).keep(captured.disks, place)
  const images = new Map(disks.flatMap(({ layers }) => layers).map(({ file, sha256 }) => [file, sha256]))

  // Side by side: while one waits for the device, another is hashed.
  const files = await Promise.all(
    [...captured.files, ...kept].map(({ name, role }) =>
      role === "base" ? describeBase(dir, name, images.get(name)) : sealFile(dir, name, role),
    ),
  )
  const manifest: Manifest = {
    ...header(order),
    kind: captured.kind,
    hypervisor: {
      name: order.hypervisor.name,
      version: captured.hypervisorVersion ?? order.hypervisorVersion,
    },
    launch: { ...order.launch },
    ...(attached?.option !== undefined && { not_restorable: attached.option }),
    ...opaqueMemory(order, captured),
    disks: disks.map((disk) => ({ ...disk })),
    captured_at: databaseTime(order.clock, captured.capturedAtMs).toISOString(),
    // To the microsecond: what a clock has beyond that is noise.
    pause_ms: Math.round(captured.pauseMs * 1_000) / 1_000,
    files,
  }
  await writeManifest(dir, manifest)
  return manifest
}

/**
 * Makes `dir` a payload of the same content as the sealed one in `from`, by links where that is possible.
 * Memory that lies there as frames is the raw file here.
 */
export async function sealCopy(
  order: CaptureOrder,
  dir: string,
  { from, manifest }: { from: string; manifest: Manifest },
): Promise<Manifest> {
  const { signal } = new AbortController()
  const memory = memoryEntry(manifest)
  const others = manifest.files.filter(({ role }) => role !== "memory")
  await linkPayload(others, { from, to: dir, store: await imagesFor(dir, order), signal })
  if (memory?.name === rawMemoryName) await linkFiles([rawMemoryName], from, dir, signal)
  else if (memory !== undefined)
    await decompressFile({
      source: join(from, memory.name),
      destination: join(dir, rawMemoryName),
      threads: decompressThreads,
      mode: payloadMode,
      signal,
      // With the rest of the payload, below.
      sync: false,
    })
  const names = others.map(({ name }) => name)
  await syncPayload(dir, memory === undefined ? names : [...names, rawMemoryName])
  const copy: Manifest = {
    ...manifest,
    ...header(order),
    captured_at: databaseTime(order.clock, monotonicMs()).toISOString(),
    pause_ms: 0,
    files: manifest.files.map((file) =>
      file.name === memory?.name ? { ...file, name: rawMemoryName } : file,
    ),
  }
  await writeManifest(dir, copy)
  return copy
}

/** Which file of a payload holds its memory, raw or compressed. */
export function memoryFileOf(manifest: Manifest): string | undefined {
  return memoryEntry(manifest)?.name
}

function opaqueMemory(
  { hypervisor }: CaptureOrder | StandbyOrder,
  { kind }: Captured,
): Pick<Manifest, "opaque_memory"> {
  return kind === "Standby" && hypervisor.opaqueMemory !== undefined
    ? { opaque_memory: hypervisor.opaqueMemory }
    : {}
}

/** Brings what was linked or copied to the device, except images: those were durable before. */
export async function syncPayload(dir: string, names: readonly string[]): Promise<void> {
  await Promise.all(names.filter((name) => !name.endsWith(".base")).map((name) => syncFile(join(dir, name))))
}

function header(
  order: CaptureOrder | StandbyOrder,
): Pick<Manifest, "format" | "snapshot_id" | "token" | "source_instance"> {
  return {
    format: 1,
    ...(order.kind === "capture" && { snapshot_id: order.snapshotId }),
    token: order.token,
    source_instance: { id: order.instanceId, name: order.instanceName },
  }
}

async function sealFile(dir: string, name: string, role: ManifestFile["role"]): Promise<ManifestFile> {
  const path = join(dir, name)
  if (role === "memory" || role === "state") await chmod(path, payloadMode)
  const [{ sha256, bytes }] = await Promise.all([
    (role === "disk" ? diskHash : sha256File)(path, { signal: new AbortController().signal }),
    syncFile(path),
  ])
  return { name, role, bytes, sha256 }
}

/** Brought to the device and hashed when it was imported, and perhaps far too large to read here. */
async function describeBase(dir: string, name: string, sha256: string | undefined): Promise<ManifestFile> {
  const { size } = await stat(join(dir, name))
  return { name, role: "base", bytes: size, ...(sha256 !== undefined && { sha256 }) }
}

/** Brings a payload's files to another directory: images as links to those of that file system. */
export async function linkPayload(
  files: readonly ManifestFile[],
  place: { from: string; to: string; store: ImageStore; signal: AbortSignal },
): Promise<void> {
  const layers = files.map(({ name, role, sha256 }) => ({
    file: name,
    ...(role === "base" && { sha256 }),
  }))
  await linkLayers(layers, place)
}
