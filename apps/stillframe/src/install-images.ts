import { copyFile, link, mkdir, rename, rm, stat } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"

const checkout = resolve(import.meta.dirname, "../../..")

/** Where the set-up leaves each guest, and where a launch looks for it below `DATA_DIR/images`. */
const images: Readonly<Record<string, string>> = {
  "demo/vmlinuz": join(checkout, ".tools/guests/demo/vmlinuz"),
  "demo/initramfs.cpio.gz": join(checkout, ".tools/guests/demo/initramfs.cpio.gz"),
  "heartbeat.elf": join(checkout, "packages/hypervisors/guests/heartbeat.elf"),
}

/** Brings the built-in guests into `imagesDir`. One that the set-up has not fetched is left out; a launch of it says so. */
export async function installImages(imagesDir: string): Promise<void> {
  for (const [name, source] of Object.entries(images)) {
    const target = join(imagesDir, name)
    const [from, to] = await Promise.all([sizeOf(source), sizeOf(target)])
    if (from === undefined || from === to) continue
    await mkdir(dirname(target), { recursive: true, mode: 0o755 })
    const draft = `${target}.${process.pid}`
    // Another file system can't be linked to; the copy is the same to every reader.
    await link(source, draft).catch(() => copyFile(source, draft))
    await rename(draft, target)
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
