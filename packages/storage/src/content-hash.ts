import { createHash } from "node:crypto"
import type { FileHandle } from "node:fs/promises"
import { holesOf } from "./holes.ts"

/** Blocks of this size that are zeros are left out of the hash, and become holes in copies. */
export const zeroBlockBytes = 64 * 1024
/** SHA-256 of so many zeros takes some seconds. Smaller files have the hash that `sha256sum` prints. */
export const sparseBytesMin = 4 * 1024 ** 3

const zeros = Buffer.alloc(zeroBlockBytes)
const sparseScheme =
  "stillframe: SHA-256 of the blocks that are not zeros, each after its position, and of the size\0"

export interface ContentHash {
  /**
   * Takes pieces in order, each at a multiple of `zeroBlockBytes`. Holes need not be handed in where
   * `skipsZeros` is true.
   */
  update(piece: Uint8Array, position: number): void
  /** In hexadecimal, of a file that ends at `bytes`. */
  digest(bytes: number): string
  readonly skipsZeros: boolean
}

/**
 * The hash of a disk's or an image's content, however it is stored: SHA-256 of a file below `sparseBytesMin`;
 * above, the zeros are left out, so that a sparse file costs as much as its data. `bytes`: the size of the
 * file.
 */
export function contentHash(bytes: number): ContentHash {
  return bytes < sparseBytesMin ? plainHash() : sparseHash()
}

/** SHA-256 of a file of any size, as earlier versions kept it. */
export function plainHash(): ContentHash {
  const hash = createHash("sha256")
  return { skipsZeros: false, update: (piece) => void hash.update(piece), digest: () => hash.digest("hex") }
}

function sparseHash(): ContentHash {
  const hash = createHash("sha256").update(sparseScheme)
  const number = (value: number): void => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(BigInt(value))
    hash.update(bytes)
  }
  return {
    skipsZeros: true,
    update(piece, position) {
      for (let at = 0; at < piece.length; at += zeroBlockBytes) {
        const block = piece.subarray(at, at + zeroBlockBytes)
        if (isZeros(block)) continue
        number(position + at)
        hash.update(block)
      }
    },
    digest(bytes) {
      number(bytes)
      return hash.digest("hex")
    },
  }
}

/** `block` has `zeroBlockBytes` at most. */
export function isZeros(block: Uint8Array): boolean {
  return zeros.subarray(0, block.length).equals(block)
}

/**
 * Steps over the pieces of a file that lie in its holes: resolves a position to the next one that is to be
 * read.
 */
export function holeSteps(
  { fd }: FileHandle,
  { bytes, pieceBytes }: { bytes: number; pieceBytes: number },
): (position: number) => number {
  const holes = holesOf(fd, bytes)
  return (position) => {
    let next = position
    while (next < bytes && holes.cover(next, Math.min(pieceBytes, bytes - next)))
      next = Math.min(bytes, next + pieceBytes)
    return next
  }
}
