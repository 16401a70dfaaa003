import { randomUUID } from "node:crypto"
import { join } from "node:path"
import { bootFiles } from "../boot-names.ts"
import { cloneObstacle } from "../files/clone-file.ts"
import type { HostFile } from "../files/host-file.ts"
import type { GuestConfig } from "../launch-config.ts"
import { writableBytes } from "./disk-growth.ts"
import { baseName, type DiskLayer } from "./disks.ts"
import { checkDisk, checkKernel, openHostFile, type CheckedDisk, type HostPathRules } from "./host-paths.ts"
import { hostImages } from "./image-store.ts"
import { importImage, copyImage, importBytes } from "./import-image.ts"

const statBlockBytes = 512

/** All files of a caller's that a launch names, opened until this is disposed of. */
export interface LaunchFiles extends AsyncDisposable {
  readonly disks: readonly CheckedDisk[]
  readonly boot: readonly { readonly name: string; readonly file: HostFile }[]
}

/** How far the import of a launch's files is, in bytes. */
export interface ImportProgress {
  readonly bytes: number
  readonly totalBytes: number
}

export interface PreparePlace {
  /** The directory of the new VM. */
  readonly dir: string
  readonly rules: HostPathRules
  readonly signal: AbortSignal
  /** Called while the caller's files are copied. */
  readonly onImport?: ((progress: ImportProgress) => void) | undefined
}

/** Brings a launch's files into the VM's directory, one after the other. */
export interface Importer {
  /** As an image of ours, which nobody writes; resolves with its SHA-256. */
  image(file: HostFile, name: string): Promise<string>
  /** As a file that the VM writes. */
  copy(file: HostFile, name: string): Promise<void>
}

/** Opens all that a launch names, and looks at it. Throws `invalid_request`. */
export async function openLaunchFiles(config: GuestConfig, rules: HostPathRules): Promise<LaunchFiles> {
  await using opening = new AsyncDisposableStack()
  const disks: CheckedDisk[] = []
  for (const disk of config.disks) disks.push(opening.use(await checkDisk(disk, rules)))
  const boot: { name: string; file: HostFile }[] = []
  for (const role of ["kernel", "initrd"] as const) {
    const path = config[role]
    if (path === undefined) continue
    const file = opening.use(await openHostFile(path, rules))
    if (role === "kernel") await checkKernel(file)
    boot.push({ name: bootFiles[role], file })
  }
  const opened = opening.move()
  return { disks, boot, [Symbol.asyncDispose]: () => opened.disposeAsync() }
}

/**
 * The bytes that an import of these files writes at most into the host's `DATA_DIR`; 0 where it clones them.
 */
export async function launchBytes(files: LaunchFiles, dataDir: string): Promise<number> {
  const sizes = allOf(files).map((file) => importBytes(file, hostImages(dataDir)))
  const bytes = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
  return bytes > 0 && (await areCloned(allOf(files), dataDir)) ? 0 : bytes
}

/**
 * The bytes by which the disks of a launch may grow after its import. `asCopies`: the VM writes to copies of
 * its files, which take room already, and not to empty overlays or to clones.
 */
export async function launchGrowth(
  { disks }: LaunchFiles,
  { asCopies }: { asCopies: boolean },
): Promise<number> {
  if (!asCopies) return writableBytes(disks)
  const written = disks.filter(({ readonly }) => !readonly)
  const left = written.map(async ({ virtualSize, images: [{ file }] }) => {
    const { blocks } = await file.handle.stat()
    return Math.max(0, virtualSize - blocks * statBlockBytes)
  })
  return (await Promise.all(left)).reduce((sum, bytes) => sum + bytes, 0)
}

async function areCloned(files: readonly HostFile[], dataDir: string): Promise<boolean> {
  const [first] = files
  if (first === undefined) return false
  const devices = await Promise.all(files.map(async ({ handle }) => (await handle.stat()).dev))
  if (new Set(devices).size > 1) return false
  const trial = { from: first.path, to: join(dataDir, `clone-${randomUUID()}`), opened: first.opened }
  return (await cloneObstacle([trial])) === undefined
}

export async function openImporter(
  files: LaunchFiles,
  { dir, rules, signal, onImport = () => {} }: PreparePlace,
): Promise<Importer> {
  const store = hostImages(rules.dataDir)
  const sizes = await Promise.all(allOf(files).map(async ({ handle }) => (await handle.stat()).size))
  const totalBytes = sizes.reduce((sum, size) => sum + size, 0)
  let done = 0
  const onBytes = (bytes: number): void => onImport({ bytes: done + bytes, totalBytes })
  const counted = async <T>(file: HostFile, work: Promise<T>): Promise<T> => {
    const result = await work
    done += (await file.handle.stat()).size
    return result
  }
  return {
    image: (file, name) => counted(file, importImage(file, join(dir, name), { store, signal, onBytes })),
    copy: (file, name) => counted(file, copyImage(file, join(dir, name), { signal, onBytes })),
  }
}

/** Brings kernel and initial RAM disk into a new VM's directory. */
export async function layBootFiles({ boot }: LaunchFiles, importer: Importer): Promise<void> {
  for (const { name, file } of boot) await importer.image(file, name)
}

/** Brings a disk's chain into a new VM's directory. Resolves with its layers there, topmost first. */
export async function layImages(
  { images }: CheckedDisk,
  disk: number,
  importer: Importer,
): Promise<DiskLayer[]> {
  const layers: DiskLayer[] = []
  for (const [depth, { file, format }] of images.entries()) {
    const name = baseName(disk, depth)
    layers.push({ file: name, format, sha256: await importer.image(file, name) })
  }
  return layers
}

function allOf({ disks, boot }: LaunchFiles): HostFile[] {
  return [...disks.flatMap(({ images }) => images.map(({ file }) => file)), ...boot.map(({ file }) => file)]
}
