import { constants } from "node:fs"
import { open, realpath, stat, type FileHandle } from "node:fs/promises"
import { dirname, join, resolve, sep } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { imageFormat, isKernel, magicBytes } from "./file-magic.ts"
import { checkPathShape, type DiskConfig } from "./launch-config.ts"
import { readQcow2Header } from "./qemu/qcow2-header.ts"

/** Where callers' files may lie on this host. */
export interface HostPathRules {
  /** `HOST_PATHS`: absolute directories. */
  hostPaths: readonly string[]
  /** `DATA_DIR`: nothing in it may be opened for a caller but its `images`, and those only if `hostPaths` reaches them. */
  dataDir: string
}

/** A caller's disk after we looked at it: real paths, and every image that QEMU will open below it. */
export interface CheckedDisk {
  path: string
  format: "raw" | "qcow2"
  readonly: boolean
  virtualSize: number
  /** Nearest first. */
  backing: { path: string; format: "raw" | "qcow2" }[]
}

const BACKING_DEPTH_MAX = 16
const SECTOR_BYTES = 512
/** The largest disk that an overlay with clusters of 64 KiB can lie on. */
const VIRTUAL_BYTES_MAX = 2 ** 51

/** The real path of a caller's file. Throws `invalid_request` when it is missing, no regular file or not under an allowed directory. */
export async function resolveHostPath(path: string, rules: HostPathRules): Promise<string> {
  checkPathShape(path)
  const real = await realpath(path).catch((error: unknown) => {
    throw refused(path, "it does not exist or cannot be read on this host", error)
  })
  checkPathShape(real)
  const roots = await Promise.all(rules.hostPaths.map(realOrItself))
  if (!roots.some((root) => isInside(real, root))) {
    throw refused(path, "it is not under HOST_PATHS; move it there or have the operator add its directory")
  }
  const dataDir = await realOrItself(rules.dataDir)
  if (isInside(real, dataDir) && !isInside(real, join(dataDir, "images"))) {
    throw refused(path, "it lies in DATA_DIR, which belongs to the service; move it elsewhere")
  }
  if (!(await stat(real)).isFile()) throw refused(path, "it is not a regular file")
  return real
}

/**
 * Looks at a caller's disk before QEMU does: path rules for the file and for every backing file, whose names come from inside the
 * image and are as untrusted as the request. Throws `invalid_request`.
 */
export async function checkDisk(disk: DiskConfig, rules: HostPathRules): Promise<CheckedDisk> {
  const path = await resolveHostPath(disk.path, rules)
  const chain: { path: string; format: "raw" | "qcow2"; virtualSize: number }[] = []
  for (
    let next: { path: string; format: "raw" | "qcow2" } | undefined = { path, format: disk.format };
    next !== undefined;
  ) {
    if (chain.length > BACKING_DEPTH_MAX)
      throw refused(disk.path, `it has more than ${BACKING_DEPTH_MAX} backing files`)
    const layer: LookedAt = await lookAt(next, rules)
    chain.push({ ...next, virtualSize: layer.virtualSize })
    next = layer.backing
  }
  const [first, ...backing] = chain
  return {
    path,
    format: disk.format,
    readonly: disk.readonly,
    virtualSize: first?.virtualSize ?? 0,
    backing: backing.map(({ path, format }) => ({ path, format })),
  }
}

interface LookedAt {
  virtualSize: number
  backing?: { path: string; format: "raw" | "qcow2" }
}

async function lookAt(
  image: { path: string; format: "raw" | "qcow2" },
  rules: HostPathRules,
): Promise<LookedAt> {
  const { head, size } = await readHead(image.path)
  const found = imageFormat(head)
  if (image.format === "raw" && found !== undefined)
    throw refused(
      image.path,
      `its format is said to be raw, but it is a ${found} image; ` +
        (found === "qcow" ? 'give "format": "qcow2"' : "convert it with qemu-img convert -O raw"),
    )
  if (image.format === "qcow2" && found === undefined)
    throw refused(image.path, 'it is not a qcow2 image; give "format": "raw" if it is a raw one')
  if (image.format === "raw")
    return { virtualSize: sizeWithin(image.path, Math.ceil(size / SECTOR_BYTES) * SECTOR_BYTES) }
  const { virtualSize, backingFile, backingFormat } = await readQcow2Header(image.path)
  sizeWithin(image.path, virtualSize)
  if (backingFile === undefined) return { virtualSize }
  if (backingFormat !== "raw" && backingFormat !== "qcow2") {
    throw refused(
      image.path,
      "it does not say whether its backing file is raw or qcow2; run qemu-img rebase -u -F <format>",
    )
  }
  // Before the name is made absolute: "json:{…}" and "nbd:…" are relative names to a path library.
  if (/[,:\\]/.test(backingFile)) throw refused(image.path, "its backing file is not a plain path")
  const path = await resolveHostPath(resolve(dirname(image.path), backingFile), rules)
  return { virtualSize, backing: { path, format: backingFormat } }
}

/** A disk without a byte boots nothing, and QEMU has no overlay for one that is too large. */
function sizeWithin(path: string, bytes: number): number {
  if (bytes === 0) throw refused(path, "it has 0 bytes; give a disk that holds something")
  if (bytes > VIRTUAL_BYTES_MAX) throw refused(path, "it is larger than 2 PiB; give a smaller one")
  return bytes
}

/** Looks at a kernel before a hypervisor does. Throws `invalid_request` when it cannot be read or is not a kernel. */
export async function checkKernel(path: string): Promise<void> {
  const { head } = await readHead(path)
  if (!isKernel(head))
    throw refused(path, "it is not a kernel; give a bzImage, or a vmlinux with a PVH note for QEMU")
}

/** The first bytes of a caller's file, and its size. Throws `invalid_request` when this host's worker may not read it. */
async function readHead(path: string): Promise<{ head: Buffer; size: number }> {
  await using file = await openToRead(path)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(magicBytes), 0, magicBytes, 0)
  return { head: buffer.subarray(0, bytesRead), size: (await file.stat()).size }
}

async function openToRead(path: string): Promise<FileHandle> {
  // A pipe in its place would be waited for without end.
  return await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EACCES" && error.code !== "EPERM" && error.code !== "ENOENT") throw error
    throw refused(
      path,
      `this host's worker cannot read it (${error.code}); change its rights or its owner`,
      error,
    )
  })
}

/** Whether a real path is a real directory or lies below it. */
export function isInside(path: string, root: string): boolean {
  return path === root || path.startsWith(root.endsWith(sep) ? root : root + sep)
}

async function realOrItself(path: string): Promise<string> {
  // A root that does not exist admits nothing, whatever its spelling.
  return await realpath(path).catch(() => path)
}

const refused = (path: string, why: string, cause?: unknown): StillframeError =>
  new StillframeError("invalid_request", `${JSON.stringify(path)} is refused: ${why}`, { cause })
