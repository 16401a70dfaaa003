import { randomBytes } from "node:crypto"
import { link, open, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { cannotLink } from "@stillframe/domain/hard-links"
import { syncDir } from "@stillframe/storage/durable"
import { draftIn, removeStaleDrafts } from "./draft-names.ts"
import type { Output } from "./output.ts"

/**
 * Makes the file beside its place, so that under its name there is all of it, what was there before, or
 * nothing.
 */
export async function publishOutput<Result>(
  output: Extract<Output, { kind: "file" }>,
  make: (destination: string) => Promise<Result>,
): Promise<Result> {
  const dir = dirname(output.path)
  await removeStaleDrafts(dir)
  const beside = await draftIn(dir)
  const result = await make(beside)
  try {
    if (output.replaces) await rename(beside, output.path)
    else await moveToNewName(beside, output.path)
  } catch (cause) {
    // Hours of work may be in it, and a draft would be removed later.
    const kept = join(dir, `stillframe-${randomBytes(6).toString("hex")}.kept`)
    const name = await rename(beside, kept).then(
      () => kept,
      () => beside,
    )
    throw new StillframeError(
      "storage_failed",
      `the result is whole, but cannot get the name ${output.path}: ${(cause as Error).message}; it is kept as ${name}`,
      { cause },
    )
  }
  // Removing the source next must not lose both to a power cut.
  await syncDir(dir).catch((error: NodeJS.ErrnoException) => {
    // A directory that may be written and not read cannot be synced; the file is in place.
    if (error.code !== "EACCES") throw error
  })
  return result
}

/** Links never replace a file that has appeared meanwhile. FAT and some network file systems have none. */
async function moveToNewName(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
    await rm(from)
  } catch (error) {
    if (!cannotLink(error)) throw error
    await (await open(to, "wx")).close()
    await rename(from, to).catch(async (cause: unknown) => {
      await rm(to)
      throw cause
    })
  }
}
