import { readFile, stat, utimes, writeFile } from "node:fs/promises"

/** One bit, in the middle, and the file as old as before. */
export async function flipBit(path: string): Promise<void> {
  const { atime, mtime } = await stat(path)
  const bytes = await readFile(path)
  bytes[bytes.length >> 1]! ^= 1
  await writeFile(path, bytes)
  await utimes(path, atime, mtime)
}
