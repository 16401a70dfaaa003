import { constants } from "node:fs"
import type { FileHandle } from "node:fs/promises"
import { openRegular } from "@stillframe/storage/open-regular"

export const pageBytes = 4096

/** A global of Node that its types leave to the browser's library. */
declare const WebAssembly: { Memory: new (pages: { initial: number }) => { buffer: ArrayBuffer } }

/** Memory whose address is a multiple of the page size, which plain typed arrays do not promise. */
export function alignedMemory(bytes: number): Uint8Array {
  return new Uint8Array(new WebAssembly.Memory({ initial: Math.ceil(bytes / 65_536) }).buffer)
}

/** The whole pages around a range of bytes. */
export function pagesAround(start: number, end: number): { position: number; bytes: number } {
  const position = start - (start % pageBytes)
  return { position, bytes: Math.ceil((end - position) / pageBytes) * pageBytes }
}

/**
 * Undefined where the system or the file system has no direct reading of pages (macOS, tmpfs before Linux
 * 6.6).
 */
export async function openDirect(path: string): Promise<FileHandle | undefined> {
  if (constants.O_DIRECT === undefined) return undefined
  let handle
  try {
    handle = await openRegular(path, constants.O_DIRECT)
    // With larger blocks than pages, opening succeeds and reading does not.
    await handle.read(alignedMemory(pageBytes), 0, pageBytes, 0)
    return handle
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EINVAL" && handle !== undefined) return handle
    await handle?.close()
    if ((thrown as NodeJS.ErrnoException).code === "EINVAL") return undefined
    throw thrown
  }
}
