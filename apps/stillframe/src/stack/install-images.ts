import { copyFile, link, rename, rm, stat } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { makeDirectory } from "@stillframe/storage/directory"
import { inOwnDirectory, isFull } from "@stillframe/storage/own-directory"

const checkout = resolve(import.meta.dirname, "../../../..")

/** Maps a path below `DATA_DIR/images`, which launches read, to the file that the set-up made. */
const images: Readonly<Record<string, string>> = {
  "demo/vmlinuz": join(checkout, ".tools/guests/demo/vmlinuz"),
  "demo/initramfs.cpio.gz": join(checkout, ".tools/guests/demo/initramfs.cpio.gz"),
  "heartbeat.elf": join(checkout, "packages/hypervisors/guests/heartbeat.elf"),
}

/**
 * Brings the built-in guests into `imagesDir`, which is below DATA_DIR. One that the set-up has not fetched
 * is left out; a launch of it says so. Resolves with those that a full disk keeps out: it keeps no service
 * from starting, since deleting must still be possible.
 */
export async function installImages(imagesDir: string): Promise<string[]> {
  const left: string[] = []
  for (const [name, source] of Object.entries(images)) {
    const size = await sizeOf(source)
    if (size === undefined) continue
    try {
      await inOwnDirectory("DATA_DIR", imagesDir, () => install(source, size, join(imagesDir, name)))
    } catch (error) {
      if (!isFull((error as Error).cause)) throw error
      left.push(name)
    }
  }
  return left
}

async function install(source: string, size: number, target: string): Promise<void> {
  if ((await sizeOf(target)) === size) return
  await makeDirectory(dirname(target), 0o755)
  const draft = `${target}.${process.pid}`
  try {
    // Another file system can't be linked to; the copy is the same to every reader.
    await link(source, draft).catch(() => copyFile(source, draft))
    await rename(draft, target)
  } finally {
    await rm(draft, { force: true })
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return stat(path).then(
    ({ size }) => size,
    (error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error
      return undefined
    },
  )
}
