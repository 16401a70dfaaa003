import { createHash } from "node:crypto"
import { type Control, throwIfStopped } from "./control.ts"
import { readFully } from "./files.ts"

export interface HashFileTask {
  kind: "hash-file"
  control: Control
  fd: number
  bytes: number
}

/** Small enough to stay in the second-level cache between the read and the hash. */
const pieceBytes = 256 * 1024

export function runHashFile({ control, fd, bytes }: HashFileTask): string {
  const hash = createHash("sha256")
  const buffer = Buffer.allocUnsafeSlow(pieceBytes)
  for (let position = 0; position < bytes; position += pieceBytes) {
    throwIfStopped(control)
    const piece = buffer.subarray(0, Math.min(pieceBytes, bytes - position))
    readFully(fd, piece, position)
    hash.update(piece)
  }
  return hash.digest("hex")
}
