import { realpath, stat } from "node:fs/promises"
import { dirname, join, resolve, sep } from "node:path"
import type { StillframeError } from "@stillframe/domain/errors"
import { imageFormat, isKernel, magicBytes } from "../files/file-magic.ts"
import {
  openHostFileAt,
  pathOfDescriptor,
  refusedFile as refused,
  type HostFile,
} from "../files/host-file.ts"
import { checkPathShape, type DiskConfig } from "../launch-config.ts"
import { readQcow2Header } from "./qcow2-header.ts"

/** Directories of this host in which callers' files may lie. */
export interface HostPathRules {
  /** `HOST_PATHS`: absolute directories. */
  hostPaths: readonly string[]
  /**
   * `DATA_DIR`: nothing in it may be opened for a caller but its `images`, and those only if `hostPaths`
   * reaches them.
   */
  dataDir: string
}

/**
 * A caller's disk after we looked at it, opened until this is disposed of: the image and every image below
 * it, nearest first.
 */
export interface CheckedDisk extends AsyncDisposable {
  readonly readonly: boolean
  readonly virtualSize: number
  readonly images: readonly [CheckedImage, ...CheckedImage[]]
}

export interface CheckedImage {
  readonly file: HostFile
  readonly format: "raw" | "qcow2"
}

const BACKING_DEPTH_MAX = 16
const SECTOR_BYTES = 512
/** The largest disk that an overlay with clusters of 64 KiB can lie on. */
const VIRTUAL_BYTES_MAX = 2 ** 51

/**
 * The real path of a caller's file. Throws `invalid_request` when it is missing, no regular file or not under
 * an allowed directory.
 */
export async function resolveHostPath(path: string, rules: HostPathRules, shown = path): Promise<string> {
  checkPathShape(path)
  const real = await realpath(path).catch(async (error: unknown) => {
    // A caller must not learn what lies outside.
    if (!rules.hostPaths.some((root) => isInside(resolve(path), root))) throw outside(shown)
    throw refused(shown, "it does not exist or cannot be read on this host; check the path", error)
  })
  await assertAllowed(real, shown, rules)
  assertPlain(real, shown)
  if (!(await stat(real)).isFile()) throw refused(shown, "it is not a regular file")
  return real
}

async function assertAllowed(real: string, shown: string, rules: HostPathRules): Promise<void> {
  const roots = await Promise.all(rules.hostPaths.map(realOrItself))
  if (!roots.some((root) => isInside(real, root))) throw outside(shown)
  const dataDir = await realOrItself(rules.dataDir)
  if (isInside(real, dataDir) && !isInside(real, join(dataDir, "images"))) {
    throw refused(shown, "it lies in DATA_DIR, which belongs to the service; move it elsewhere")
  }
}

const outside = (shown: string): StillframeError =>
  refused(
    shown,
    "it, or the file that it links to, is not under HOST_PATHS; move it there or have the operator add its directory",
  )

/** As `checkPathShape`, without a word of where a link leads. */
function assertPlain(real: string, shown: string): void {
  try {
    checkPathShape(real)
  } catch (error) {
    throw refused(
      shown,
      "the path that it links to holds a comma, colon, backslash or control character, or is too long; rename that file",
      error,
    )
  }
}

/**
 * Opens a caller's file, once, for all that is done with it. A local user may swap the file or a directory
 * above it between the look at its path and the open, so the path of what was opened is judged again. Throws
 * `invalid_request`.
 */
export async function openHostFile(path: string, rules: HostPathRules, shown = path): Promise<HostFile> {
  const file = await openHostFileAt(await resolveHostPath(path, rules, shown), shown)
  try {
    const opened = await pathOfDescriptor(file)
    await assertAllowed(opened, shown, rules)
    assertPlain(opened, shown)
    return file
  } catch (error) {
    await file[Symbol.asyncDispose]()
    throw error
  }
}

/**
 * Looks at a caller's disk before QEMU does: path rules for the file and for every backing file, whose names
 * come from inside the image and are as untrusted as the request. Throws `invalid_request`.
 */
export async function checkDisk(disk: DiskConfig, rules: HostPathRules): Promise<CheckedDisk> {
  await using opening = new AsyncDisposableStack()
  const first = { file: opening.use(await openHostFile(disk.path, rules)), format: disk.format }
  const images: [CheckedImage, ...CheckedImage[]] = [first]
  let { virtualSize, backing } = await lookAt(first)
  const readonly = { readonly: disk.readonly, virtualSize }
  while (backing !== undefined) {
    if (images.length > BACKING_DEPTH_MAX)
      throw refused(disk.path, `it has more than ${BACKING_DEPTH_MAX} backing files`)
    const { path, shown, format } = backing
    const image = { file: opening.use(await openHostFile(path, rules, shown)), format }
    images.push(image)
    backing = (await lookAt(image)).backing
  }
  const opened = opening.move()
  return { ...readonly, images, [Symbol.asyncDispose]: () => opened.disposeAsync() }
}

interface LookedAt {
  virtualSize: number
  /** `shown`: as the image's header names it. */
  backing?: { path: string; shown: string; format: "raw" | "qcow2" }
}

async function lookAt({ file, format }: CheckedImage): Promise<LookedAt> {
  const { path, shown, opened } = file
  const found = imageFormat(await headOf(file))
  if (format === "raw" && found !== undefined)
    throw refused(
      shown,
      `its format is said to be raw, but it is a ${found} image; ` +
        (found === "qcow" ? 'give "format": "qcow2"' : "convert it with qemu-img convert -O raw"),
    )
  if (format === "qcow2" && found === undefined)
    throw refused(shown, 'it is not a qcow2 image; give "format": "raw" if it is a raw one')
  if (format === "raw") {
    const { size } = await file.handle.stat()
    return { virtualSize: sizeWithin(shown, Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES) }
  }
  const { virtualSize, backingFile, backingFormat } = await readQcow2Header(opened, shown)
  sizeWithin(shown, virtualSize)
  if (backingFile === undefined) return { virtualSize }
  if (backingFormat !== "raw" && backingFormat !== "qcow2") {
    throw refused(
      shown,
      "it does not say whether its backing file is raw or qcow2; run qemu-img rebase -u -F <format>",
    )
  }
  // Before the name is made absolute: "json:{…}" and "nbd:…" are relative names to a path library.
  if (/[,:\\]/.test(backingFile)) throw refused(shown, "its backing file is not a plain path")
  return {
    virtualSize,
    backing: { path: resolve(dirname(path), backingFile), shown: backingFile, format: backingFormat },
  }
}

/** A disk without a byte boots nothing, and QEMU has no overlay for one that is too large. */
function sizeWithin(shown: string, bytes: number): number {
  if (bytes === 0) throw refused(shown, "it has 0 bytes; give a disk that holds something")
  if (bytes > VIRTUAL_BYTES_MAX) throw refused(shown, "it is larger than 2 PiB; give a smaller one")
  return bytes
}

/** Looks at a kernel before a hypervisor does. Throws `invalid_request` when it is not a kernel. */
export async function checkKernel(file: HostFile): Promise<void> {
  if (!isKernel(await headOf(file)))
    throw refused(file.shown, "it is not a kernel; give a bzImage, or a vmlinux with a PVH note for QEMU")
}

/** The first bytes of a caller's file. */
async function headOf({ handle }: HostFile): Promise<Buffer> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(magicBytes), 0, magicBytes, 0)
  return buffer.subarray(0, bytesRead)
}

/** True if the real path is the directory or lies below it. */
export function isInside(path: string, root: string): boolean {
  return path === root || path.startsWith(root.endsWith(sep) ? root : root + sep)
}

async function realOrItself(path: string): Promise<string> {
  // A root that does not exist admits nothing, whatever its spelling.
  return await realpath(path).catch(() => path)
}
