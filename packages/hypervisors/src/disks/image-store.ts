import { link, lstat, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises"
import { dirname, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { cannotLink } from "@stillframe/domain/hard-links"
import { sparseBytesMin } from "@stillframe/storage/content-hash"
import { copyHashed, hashPlainly } from "../files/copy-hashed.ts"
import { fileExists } from "../files/file-exists.ts"
import { openHostFileAt } from "../files/host-file.ts"
import { linkFile, linkOrNot } from "../files/link-files.ts"
import { isSealed, sealCopy } from "../files/seal-copy.ts"

/** Images that belong to us: read-only files named by the SHA-256 of what they hold, shared by hard links. */
export interface ImageStore {
  /** On the file system of the directories that link to it. */
  readonly dir: string
  /** Records of this host's callers' files: see `known-images.ts`. */
  readonly knownDir: string
}

const sha256Name = /^[0-9a-f]{64}$/

/** The images that VMs of this host use. */
export function hostImages(dataDir: string): ImageStore {
  return { dir: join(dataDir, "base-images"), knownDir: join(dataDir, "known-images") }
}

/** The store for what lies in `dir`: the host's where that can be linked to, else the pool's. */
export async function imagesFor(
  dir: string,
  { dataDir, storageDir }: { dataDir: string; storageDir: string },
): Promise<ImageStore> {
  const host = hostImages(dataDir)
  const [here, there] = await Promise.all([stat(dir), stat(dataDir)])
  return here.dev === there.dev ? host : { ...host, dir: join(storageDir, "images") }
}

export async function isStored({ dir }: ImageStore, sha256: string): Promise<boolean> {
  return fileExists(join(dir, sha256))
}

/**
 * Gives an image of the store another name, which may be taken. False where the store does not have it, or
 * the file system makes no (more) links.
 */
export async function linkStored({ dir }: ImageStore, sha256: string, to: string): Promise<boolean> {
  if (!sha256Name.test(sha256)) throw new StillframeError("corrupted", `${sha256} is not a SHA-256`)
  try {
    await rm(to, { force: true })
    return await linkOrNot(join(dir, sha256), to)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false
    throw error
  }
}

/**
 * Makes a whole, synced file that nobody writes any more the image `to`, shared with all that hold the same.
 * The store's link comes last: an image without another link than the store's is used by nobody, at any
 * moment.
 */
export async function storeImage(store: ImageStore, sha256: string, { part, to }: Placed): Promise<void> {
  await mkdir(store.dir, { recursive: true, mode: 0o700 })
  if (await linkStored(store, sha256, to)) return rm(part)
  await rename(part, to)
  try {
    await link(to, join(store.dir, sha256))
  } catch (error) {
    // Another import was faster, or the file system makes no links: then this image is shared with nobody.
    if ((error as NodeJS.ErrnoException).code !== "EEXIST" && !cannotLink(error)) throw error
  }
  await syncDirectory(store.dir)
}

interface Placed {
  /** Absolute, in the directory of `to`. */
  readonly part: string
  readonly to: string
}

/**
 * By the store's link, else from the file itself after a look at what it holds: the directory may be a VM's,
 * whose process may have been broken out of. Throws `corrupted` for a file that is not that image.
 */
async function linkImage(
  store: ImageStore,
  { from, to, sha256, signal }: { from: string; to: string; sha256: string; signal: AbortSignal },
): Promise<void> {
  if (await linkStored(store, sha256, to)) return
  const part = `${to}.part`
  await rm(part, { force: true })
  try {
    const found = (await linkSealed(from, part))
      ? await hashOf(part, signal)
      : await copySealed(from, part, signal)
    if (found !== sha256 && (await plainHashOf(part, signal)) !== sha256)
      throw new StillframeError("corrupted", `${from} has the SHA-256 ${found} instead of ${sha256}`)
    await storeImage(store, sha256, { part, to })
  } catch (error) {
    await rm(part, { force: true })
    throw error
  }
}

/**
 * False also for a file that another user owns or may write, and in another user's directory: a process of
 * his may have a file open for writing that was sealed since, and the store is for all VMs.
 */
async function linkSealed(from: string, to: string): Promise<boolean> {
  const us = process.geteuid?.()
  if ((await stat(dirname(from))).uid !== us || !(await linkOrNot(from, to))) return false
  const { uid } = await lstat(to)
  if (uid === us && (await isSealed(to))) return true
  await rm(to)
  return false
}

async function hashOf(path: string, signal: AbortSignal): Promise<string> {
  await using file = await openHostFileAt(path)
  return await copyHashed(file.handle, { signal })
}

/** The hash that earlier versions kept; undefined where the content's is the same one. */
async function plainHashOf(path: string, signal: AbortSignal): Promise<string | undefined> {
  await using file = await openHostFileAt(path)
  const { size } = await file.handle.stat()
  return size < sparseBytesMin ? undefined : await hashPlainly(file.handle, { signal })
}

async function copySealed(from: string, part: string, signal: AbortSignal): Promise<string> {
  await using source = await openHostFileAt(from)
  await using to = await open(part, "wx", 0o600)
  const sha256 = await copyHashed(source.handle, { to, signal })
  await sealCopy(part)
  await to.sync()
  return sha256
}

/**
 * Brings what a VM only reads to another directory under the same names: images of ours, and other immutable
 * files.
 */
export async function linkLayers(
  layers: readonly { readonly file: string; readonly sha256?: string | undefined }[],
  { from, to, store, signal }: { from: string; to: string; store: ImageStore; signal: AbortSignal },
): Promise<void> {
  for (const { file, sha256 } of layers) {
    const place = { from: join(from, file), to: join(to, file), signal }
    if (sha256 === undefined) await linkFile(place.from, place.to, signal)
    else if (!(await fileExists(place.to))) await linkImage(store, { ...place, sha256 })
  }
}

/**
 * Removes the images that only the store has a link to, and resolves with how many. One that a VM is given at
 * the same moment loses no byte: the VM's link keeps them, and the next import stores them again.
 */
export async function removeUnusedImages({ dir }: Pick<ImageStore, "dir">): Promise<number> {
  const names = (await storedNames(dir)).filter((name) => sha256Name.test(name))
  let removed = 0
  for (const name of names) {
    const path = join(dir, name)
    if ((await linksOf(path)) !== 1) continue
    await rm(path, { force: true })
    removed += 1
  }
  return removed
}

/** 0 where another worker's sweep was faster. */
async function linksOf(path: string): Promise<number> {
  try {
    return (await lstat(path)).nlink
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return 0
    throw error
  }
}

/** Empty where there is no store yet. */
export async function storedNames(dir: string): Promise<string[]> {
  return readdir(dir).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return []
    throw error
  })
}

/** Makes names survive a loss of power. */
async function syncDirectory(path: string): Promise<void> {
  await using handle = await open(path, "r")
  await handle.sync()
}
