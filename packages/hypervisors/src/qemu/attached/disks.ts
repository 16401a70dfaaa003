import { readdir, readlink, stat } from "node:fs/promises"
import { resolve } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { factsOf, type Disk, type DiskSource } from "../../disks/disks.ts"
import { openHostFile, type HostPathRules } from "../../disks/host-paths.ts"
import { readQcow2Header } from "../../disks/qcow2-header.ts"
import { pathOfDescriptor, type HostFile } from "../../files/host-file.ts"
import type { Monitor } from "../monitor/qmp.ts"
import { identityOf, openAttachedFile, type AttachedFile } from "./file.ts"

/** As large as any file system of Linux allows, and small enough to add up exactly. */
const diskBytesMax = 2 ** 46

/** A disk of a VM that someone else started: what runs now, by QEMU's own account, with real paths. */
export interface AttachedDisk extends AttachedFile {
  /** The block node that the device reads and writes. */
  node: string
  readonly: boolean
  format: "raw" | "qcow2"
  virtualSize: number
  /** Nearest first. */
  backing: (AttachedFile & { format: "raw" | "qcow2" })[]
}

interface Image {
  filename: string
  format: string
  "virtual-size": number
  "backing-image"?: Image
}

interface Block {
  device: string
  qdev?: string
  inserted?: { "node-name": string; ro: boolean; drv: string; image: Image }
}

/**
 * The disks of a running QEMU. Throws `not_supported` for a writable disk that is no raw or qcow2 file of
 * this host, `invalid_request` for a file that the rules keep out. Read-only media that are no such files are
 * left out.
 */
export async function readAttachedDisks(
  monitor: Monitor,
  pid: number,
  rules: HostPathRules,
): Promise<AttachedDisk[]> {
  const blocks = await monitor.execute<Block[]>("query-block")
  const opened = await openInodes(pid)
  const disks: AttachedDisk[] = []
  for (const { device, qdev, inserted } of blocks) {
    if (inserted === undefined) continue
    const name = device || qdev || inserted["node-name"]
    const chain = chainOf(inserted.image)
    if (chain === undefined) {
      if (inserted.ro) continue
      throw unsupported(name, `is ${inserted.drv}, and only raw and qcow2 files of the host can be kept`)
    }
    const [top, ...backing] = await Promise.all(
      chain.map(async ({ filename, format }, depth) => {
        await using file = await realFile(name, filename, { pid, rules, opened })
        // QEMU has it open already; what we look for is data in a file that no one named.
        if (depth === 0 && format === "qcow2") await readQcow2Header(file.opened, file.path)
        return { path: file.path, identity: await identityOf(file.handle), format }
      }),
    )
    if (top === undefined) continue
    const node = inserted["node-name"]
    disks.push({
      node,
      readonly: inserted.ro,
      ...top,
      virtualSize: checkedSize(inserted.image["virtual-size"]),
      backing,
    })
  }
  return disks
}

/** Looked at by each capture too: the program on the socket is not trusted. */
function checkedSize(bytes: number): number {
  if (Number.isSafeInteger(bytes) && bytes >= 0 && bytes <= diskBytesMax) return bytes
  throw oddFigure(`a disk of ${bytes} bytes`)
}

export function oddFigure(what: string): StillframeError {
  return new StillframeError(
    "invalid_request",
    `the VM says that it has ${what}, which is impossible; check the program behind its control socket`,
  )
}

/**
 * The disk as a snapshot knows it: a writable one is a copy in the payload, everything else is where its
 * owner keeps it.
 */
export async function frozenDisk(disk: AttachedDisk, index: number): Promise<Disk> {
  const { readonly, path, format, virtualSize, backing } = disk
  const kept = readonly ? [{ path, format, identity: disk.identity }, ...backing] : backing
  const sources: DiskSource[] = []
  for (const file of kept) {
    await using opened = await openAttachedFile(file)
    sources.push({ path: file.path, ...factsOf(await opened.handle.stat()) })
  }
  const copy = readonly ? [] : [{ file: copyName(index), format }]
  return {
    readonly,
    virtualSize,
    layers: [...copy, ...kept.map(({ path, format }) => ({ file: path, format }))],
    sources,
  }
}

/**
 * Our copy of an attached VM's disk. Not named as an overlay: what its header says of a backing file is its
 * owner's.
 */
export const copyName = (disk: number): string => `disk${disk}.copy`

function chainOf(image: Image): { filename: string; format: "raw" | "qcow2" }[] | undefined {
  const { format, "backing-image": below } = image
  const filename = plainName(image.filename)
  if (filename === undefined || (format !== "raw" && format !== "qcow2")) return undefined
  const rest = below === undefined ? [] : chainOf(below)
  return rest && [{ filename, format }, ...rest]
}

/** QEMU writes a node whose options no file name can express as `json:` and those options. */
function plainName(filename: string): string | undefined {
  if (!filename.startsWith("json:")) return /^[a-z][a-z0-9+.-]*:/.test(filename) ? undefined : filename
  const { file } = JSON.parse(filename.slice("json:".length)) as {
    file?: { driver?: string; filename?: string }
  }
  return file?.driver === "file" ? file.filename : undefined
}

async function realFile(
  name: string,
  filename: string,
  { pid, rules, opened }: { pid: number; rules: HostPathRules; opened: ReadonlySet<string> },
): Promise<HostFile> {
  const path = filename.startsWith("/") ? filename : resolve(await readlink(`/proc/${pid}/cwd`), filename)
  const file = await openHostFile(path, rules)
  try {
    // QEMU may live in a container, or the name may have been given to another file since.
    if (opened.has(await identityOf(file.handle))) return { ...file, path: await pathOfDescriptor(file) }
    throw unsupported(name, `is not the file that ${path} names here; its QEMU sees other files than we do`)
  } catch (error) {
    await file[Symbol.asyncDispose]()
    throw error
  }
}

async function openInodes(pid: number): Promise<Set<string>> {
  const directory = `/proc/${pid}/fd`
  const inodes = (await readdir(directory)).map(async (fd) => {
    // It was closed while we looked.
    return await identityOf({ stat: () => stat(`${directory}/${fd}`) }).catch(() => "")
  })
  return new Set(await Promise.all(inodes))
}

const unsupported = (disk: string, why: string): StillframeError =>
  new StillframeError("not_supported", `the disk ${disk} ${why}; take it out of the VM or launch the VM here`)
