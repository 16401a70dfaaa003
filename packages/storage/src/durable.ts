import { link, open, rename, rm, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { cannotLink } from "@stillframe/domain/hard-links"
import { createId } from "@stillframe/domain/ids"
import { exists } from "./exists.ts"
import { openRegular } from "./open-regular.ts"

/** Makes a directory's entries survive a loss of power, as far as its file system can do that. */
export async function syncDir(dir: string): Promise<void> {
  await using handle = await open(dir, "r")
  await handle.sync().catch((error: NodeJS.ErrnoException) => {
    // Some network and FUSE file systems sync no directories; they write entries on their own.
    if (error.code !== "EINVAL" && error.code !== "ENOTSUP") throw error
  })
}

/**
 * Makes a file's content survive a loss of power. An fsync that failed is never repeated: the caller throws
 * the file away.
 */
export async function syncFile(path: string): Promise<void> {
  // For reading: layers and images are read-only by now, to their owner too.
  await using handle = await openRegular(path)
  await handle.sync()
}

/**
 * Makes a small file that only one of several processes can make. One that is there already stays as it is.
 */
export async function createDurably(path: string, content: string): Promise<void> {
  // Without a draft, which a full disk has no room for.
  if (await exists(path)) return
  const draft = join(dirname(path), `.${createId()}.draft`)
  try {
    await writeFile(draft, content, { flush: true, mode: 0o600 })
    await giveName(draft, path)
  } finally {
    await rm(draft, { force: true })
  }
  await syncDir(dirname(path))
}

async function giveName(draft: string, path: string): Promise<void> {
  const linked = link(draft, path).catch(async (error: unknown) => {
    if (!cannotLink(error)) throw error
    // It reads as empty until the draft replaces it; two processes can't both make it.
    await (await open(path, "wx")).close()
    await rename(draft, path)
  })
  await linked.catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error
  })
}

/** Replaces a small file whole: a reader, or whoever comes after a crash, sees the old content or the new. */
export async function writeDurably(path: string, content: string, mode = 0o600): Promise<void> {
  const draft = join(dirname(path), `.${process.pid}.draft`)
  // One that a crash left may be read-only.
  await rm(draft, { force: true })
  await writeFile(draft, content, { flush: true, mode })
  await rename(draft, path)
  await syncDir(dirname(path))
}
