import { open, rename, rm, type FileHandle } from "node:fs/promises"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { tryClone } from "../files/clone-file.ts"
import { copyHashed, type Reading } from "../files/copy-hashed.ts"
import type { HostFile } from "../files/host-file.ts"
import { sealCopy } from "../files/seal-copy.ts"
import { isStored, linkStored, storeImage, type ImageStore } from "./image-store.ts"
import { knownSha256, rememberSha256, stateOf } from "./known-images.ts"

const statBlockBytes = 512

/**
 * Makes what a caller's file holds an image of ours with the absolute name `to`, and resolves with its
 * SHA-256. Afterwards nothing that happens to the caller's file matters. A file that was imported before and
 * is unchanged is neither read nor copied again.
 *
 * Throws `conflict` when the file is changed meanwhile, `insufficient_storage`, `storage_failed`,
 * `cancelled`; then `to` is absent.
 */
export async function importImage(
  file: HostFile,
  to: string,
  { store, ...reading }: Reading & { store: ImageStore },
): Promise<string> {
  const facts = await settledFacts(file)
  const known = await knownSha256(store, facts)
  if (known !== undefined && (await linkStored(store, known, to))) return known
  const part = `${to}.part`
  try {
    const sha256 = await copyOf(file, part, reading)
    await assertUnchanged(file, facts, { part, signal: reading.signal })
    await storeImage(store, sha256, { part, to })
    await rememberSha256(store, facts, sha256)
    return sha256
  } catch (error) {
    await rm(part, { force: true })
    throw inWords(error, file.shown, reading.signal)
  }
}

/** How many bytes an import of the file writes at most: none where its image is there already. */
export async function importBytes({ handle }: HostFile, store: ImageStore): Promise<number> {
  const facts = await factsOf(handle)
  const known = await knownSha256(store, facts)
  if (known !== undefined && (await isStored(store, known))) return 0
  return Math.min(Number(facts.size), Number(facts.blocks) * statBlockBytes)
}

/** Makes a caller's file a file `to` that a VM may write. Throws as `importImage` does. */
export async function copyImage(file: HostFile, to: string, reading: Reading): Promise<void> {
  const facts = await settledFacts(file)
  const part = `${to}.part`
  try {
    if (!(await cloned(file, part))) await copied(file, part, reading)
    await assertUnchanged(file, facts, { part, signal: reading.signal })
    await rename(part, to)
  } catch (error) {
    await rm(part, { force: true })
    throw inWords(error, file.shown, reading.signal)
  }
}

/** A page that a program has mapped and written shows no new time, unless it was written back in between. */
async function settledFacts({ handle }: HostFile): ReturnType<typeof factsOf> {
  await handle.datasync()
  return factsOf(handle)
}

const factsOf = (handle: FileHandle) => handle.stat({ bigint: true })

async function copyOf(file: HostFile, part: string, reading: Reading): Promise<string> {
  const sha256 = (await cloned(file, part)) ? await hashOf(part, reading) : await copied(file, part, reading)
  await sealCopy(part)
  await using sealed = await open(part, "r")
  await sealed.sync()
  return sha256
}

async function cloned({ path, opened }: HostFile, part: string): Promise<boolean> {
  // An import before this one may have been killed in the middle.
  await rm(part, { force: true })
  return (await tryClone({ from: path, to: part, opened })) === undefined
}

async function hashOf(path: string, reading: Reading): Promise<string> {
  await using file = await open(path, "r")
  return await copyHashed(file, reading)
}

async function copied({ handle }: HostFile, part: string, reading: Reading): Promise<string> {
  await using to = await open(part, "wx", 0o600)
  return await copyHashed(handle, { ...reading, to })
}

/**
 * Another link, owner or mode changes a file's times and leaves its content, so contents decide where times
 * differ.
 */
async function assertUnchanged(
  { handle, shown }: HostFile,
  before: Awaited<ReturnType<typeof factsOf>>,
  { part, signal }: { part: string; signal: AbortSignal },
): Promise<void> {
  const now = await factsOf(handle)
  if (stateOf(now) === stateOf(before)) return
  if (now.size === before.size) {
    const [held, copied] = [await copyHashed(handle, { signal }), await hashOf(part, { signal })]
    if (held === copied) return
  }
  throw new StillframeError(
    "conflict",
    `${shown} was changed while it was imported; launch the VM once nothing writes to that file`,
  )
}

function inWords(thrown: unknown, shown: string, signal: AbortSignal): StillframeError {
  if (signal.aborted)
    return new StillframeError("cancelled", "the import of the VM's files was cancelled", { cause: thrown })
  const error = toStillframeError(thrown)
  if (error.code !== "insufficient_storage") return error
  return new StillframeError(
    error.code,
    `cannot import ${shown}: the disk of DATA_DIR is full; free some of it, or enlarge it, and launch the VM again`,
    { cause: thrown, said: error.said },
  )
}
