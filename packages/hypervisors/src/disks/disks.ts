import type { Stats } from "node:fs"
import { readdir, stat } from "node:fs/promises"
import { basename, isAbsolute, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { listOf, optionalText, record, text } from "@stillframe/storage/json-check"
import { descriptorPath } from "../files/host-file.ts"
import { openOwn } from "../files/link-files.ts"
import { readOwnJson, writeOwnFile } from "../files/own-file.ts"
import { readQcow2Header } from "./qcow2-header.ts"

/** A disk as a VM sees it: a chain of files, of which only the first is ever written. */
export interface Disk {
  readonly: boolean
  /** Bytes. */
  virtualSize: number
  /** Active first. */
  layers: DiskLayer[]
  /**
   * Callers' files at the chain's end that were never imported, as they were when the VM was launched or
   * captured.
   */
  sources: DiskSource[]
}

export interface DiskLayer {
  /** A plain name in the VM's directory, or the absolute path of a caller's file. */
  file: string
  format: "raw" | "qcow2"
  /** Present for an image of ours, which is shared by hard links and never changes. */
  sha256?: string
}

/**
 * A caller's file that snapshots depend on. A change of size, time or inode means that the chain above it is
 * void.
 */
export interface DiskSource {
  path: string
  /** The name of our hard link to it; absent where the file systems differ. */
  link?: string
  sizeBytes: number
  mtimeMs: number
  inode: number
}

/** In a VM's directory. */
export const disksFile = "disks.json"
const LAYERS_MAX = 1024

export const overlayName = (disk: number, number: number): string => `disk${disk}.${number}.qcow2`

/** The name of an image below a disk's overlays: the caller's, or the nth below that one. */
export const baseName = (disk: number, depth = 0): string =>
  depth === 0 ? `disk${disk}.base` : `disk${disk}.${depth}.base`

/** The number in an overlay's name, or undefined where the file is none of this disk's overlays. */
export function overlayNumber(disk: number, file: string): number | undefined {
  const match = /^disk(\d+)\.(\d+)\.qcow2$/.exec(file)
  return match !== null && Number(match[1]) === disk ? Number(match[2]) : undefined
}

export const isOverlay = (file: string): boolean => /^disk\d+\.\d+\.qcow2$/.test(file)

/** Own overlays that a disk may have before a merge is worth it. */
export const layersUnmergedMax = 8

/** Our own overlays of a chain; what lies below them is the caller's. */
export function overlaysOf(disk: Disk, index: number): DiskLayer[] {
  return disk.layers.filter(({ file }) => overlayNumber(index, file) !== undefined)
}

/**
 * Leaves the chains a VM starts with in its directory, so that a later capture knows what lies below its
 * overlays.
 */
export async function writeDisks(dir: string, disks: readonly Disk[]): Promise<void> {
  await writeOwnFile(join(dir, disksFile), JSON.stringify(disks))
}

/**
 * The chains as they are now. `active` has the active overlay's number of each writable disk; the names below
 * it come from the headers of our own overlays, and stop where the caller's files begin.
 */
export async function readDisks(dir: string, active: ReadonlyMap<number, number>): Promise<Disk[]> {
  const launched = await readLaunched(dir)
  return await Promise.all(
    launched.map(async (disk, index) => {
      const number = active.get(index)
      if (number === undefined) return disk
      const overlays = await overlaysBelow(dir, index, overlayName(index, number))
      const base = disk.layers.filter(({ file }) => overlayNumber(index, file) === undefined)
      return { ...disk, layers: [...overlays, ...base] }
    }),
  )
}

/**
 * The chains that a VM was started with, from the record in its directory.
 *
 * Whoever broke out of the VM can have written it anew, but not as this process's user: then nothing counts
 * in it that lies outside of the directory. Throws `corrupted`.
 */
export async function readLaunched(dir: string): Promise<Disk[]> {
  const { value: disks, ours } = await readOwnJson(join(dir, disksFile), areDisks)
  const names = disks.flatMap(({ layers, sources }) => [
    ...layers.map(({ file }) => file),
    // One without a link of ours is read by its path.
    ...sources.map(({ link, path }) => link ?? path),
  ])
  const strange = names.find((name) => !isPlain(name) && !(ours && isAbsolute(name)))
  if (strange === undefined) return ours ? disks : disks.map(withoutHashes)
  throw new StillframeError(
    "corrupted",
    `${disksFile} names ${strange}, which is not a file of the VM. The guest may have escaped its VM: stop the instance`,
  )
}

const number = (value: unknown): boolean => typeof value === "number"

const disksCheck = listOf(
  record({
    readonly: (value) => typeof value === "boolean",
    virtualSize: number,
    layers: listOf(
      record({ file: text, format: (value) => value === "raw" || value === "qcow2", sha256: optionalText }),
    ),
    sources: listOf(
      record({ path: text, link: optionalText, sizeBytes: number, mtimeMs: number, inode: number }),
    ),
  }),
)

function areDisks(value: unknown): value is Disk[] {
  return disksCheck(value)
}

/** A hash that the VM's process may have written says nothing. */
function withoutHashes(disk: Disk): Disk {
  return { ...disk, layers: disk.layers.map(({ file, format }) => ({ file, format })) }
}

const isPlain = (name: string): boolean => basename(name) === name && name !== "." && name !== ".."

/**
 * The chains of a VM that does not run. The overlay with the largest number is on top, also when it was never
 * switched to: then it is empty.
 */
export async function readDisksAtRest(dir: string): Promise<Disk[]> {
  const active = new Map<number, number>()
  for (const name of await readdir(dir)) {
    const disk = Number(/^disk(\d+)\.\d+\.qcow2$/.exec(name)?.[1])
    const number = overlayNumber(disk, name)
    if (number !== undefined) active.set(disk, Math.max(number, active.get(disk) ?? 0))
  }
  return await readDisks(dir, active)
}

async function overlaysBelow(dir: string, disk: number, top: string): Promise<DiskLayer[]> {
  const overlays: DiskLayer[] = []
  for (let file: string | undefined = top; file !== undefined && overlayNumber(disk, file) !== undefined;) {
    if (overlays.length === LAYERS_MAX)
      throw new StillframeError("corrupted", `${top} has more than ${LAYERS_MAX} layers`)
    overlays.push({ file, format: "qcow2" })
    // The directory is the VM's user's: the name may lead elsewhere.
    await using layer = await openOwn(join(dir, file))
    const { backingFile }: { backingFile?: string } = await readQcow2Header(
      descriptorPath(layer, join(dir, file)),
      file,
    )
    file = backingFile
  }
  return overlays
}

/**
 * Makes sure that the callers' files below a chain are what they were. Throws `conflict` naming the file. A
 * file whose name was removed or given to another one is fine where we hold a link.
 */
export async function assertSourcesUnchanged(dir: string, disks: readonly Disk[]): Promise<void> {
  await currentSources(dir, disks)
}

/**
 * Does the same, and resolves with the disks with their sources as they are now. `holds`: whether a link in
 * `dir` still holds what was captured, asked where only times differ: a change of time alone is no damage.
 */
export async function currentSources(
  dir: string,
  disks: readonly Disk[],
  holds: (link: string) => Promise<boolean> = async () => false,
): Promise<Disk[]> {
  const current: Disk[] = []
  for (const disk of disks) {
    const sources: DiskSource[] = []
    for (const source of disk.sources) sources.push(await currentSource(dir, source, holds))
    current.push({ ...disk, sources })
  }
  return current
}

async function currentSource(
  dir: string,
  source: DiskSource,
  holds: (link: string) => Promise<boolean>,
): Promise<DiskSource> {
  const { link, path } = source
  const now = await sourceFacts(link === undefined ? path : join(dir, link)).catch((error: unknown) => {
    throw goneSource(source, error)
  })
  if (link !== undefined && now.sizeBytes === source.sizeBytes && now.mtimeMs !== source.mtimeMs) {
    if (await holds(link)) return { ...source, ...now }
  }
  assertSameSource(source, now)
  return { ...source, ...now }
}

type SourceFacts = Pick<DiskSource, "sizeBytes" | "mtimeMs" | "inode">

/** Throws `conflict` for a caller's file that is not what was recorded. */
export function assertSameSource(source: DiskSource, now: SourceFacts): void {
  const { path, sizeBytes, mtimeMs } = source
  if (now.sizeBytes !== sizeBytes)
    throw changedSource(path, `was changed, from ${sizeBytes} bytes to ${now.sizeBytes}`, bringBack)
  if (source.link === undefined && now.inode !== source.inode)
    throw changedSource(path, "was replaced by another file", bringBack)
  if (now.mtimeMs !== mtimeMs)
    throw changedSource(path, "was changed, by its modification time", accept(source))
}

const bringBack =
  "bring back the file itself, with its modification time; if it is lost, restore the instance from a snapshot or launch the VM anew"

/**
 * No content of an earlier version's source was ever hashed, so only its owner can know whether it is the
 * same.
 */
function accept({ path, mtimeMs }: DiskSource): string {
  const quoted = `'${path.replaceAll("'", "'\\''")}'`
  return `if its content is as it was, say so by setting the time back: touch -m -d '${exactTime(mtimeMs)}' ${quoted}; if not, bring the content back first`
}

/** RFC 3339 to the nanosecond: what `mtimeMs` is rounded from, as closely as it says. */
function exactTime(mtimeMs: number): string {
  const seconds = Math.floor(mtimeMs / 1_000)
  const nanoseconds = Math.round((mtimeMs - seconds * 1_000) * 1e6)
  const time = new Date(seconds * 1_000).toISOString().slice(0, "2026-01-01T00:00:00".length)
  return `${time}.${String(nanoseconds).padStart(9, "0")}Z`
}

export async function sourceFacts(path: string): Promise<SourceFacts> {
  return factsOf(await stat(path))
}

export function factsOf({ size, mtimeMs, ino }: Pick<Stats, "size" | "mtimeMs" | "ino">): SourceFacts {
  return { sizeBytes: size, mtimeMs, inode: ino }
}

/** A file that cannot be looked at just now is not gone. */
export function goneSource(source: DiskSource, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException
  return code === "ENOENT" || code === "ENOTDIR"
    ? changedSource(source.path, "is gone", bringBack, error)
    : error
}

function changedSource(path: string, what: string, remedy: string, cause?: unknown): StillframeError {
  return new StillframeError("conflict", `${path} ${what} since the VM was launched; ${remedy}`, { cause })
}
