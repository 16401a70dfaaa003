import { createHash, randomBytes } from "node:crypto"
import { expect, test } from "vitest"
import { contentHash, plainHash, sparseBytesMin, zeroBlockBytes } from "./content-hash.ts"

const tebibyte = 2 ** 40

/** The hash of a file that has these blocks and zeros elsewhere. */
function hashed(bytes: number, blocks: readonly (readonly [position: number, block: Buffer])[]): string {
  const hash = contentHash(bytes)
  for (const [position, block] of blocks) hash.update(block, position)
  return hash.digest(bytes)
}

const block = randomBytes(zeroBlockBytes)

test("a file below the limit has the SHA-256 that everybody computes", () => {
  const sha256 = createHash("sha256").update(block).digest("hex")

  expect(hashed(block.length, [[0, block]])).toBe(sha256)
  expect(contentHash(sparseBytesMin - 1).skipsZeros).toBe(false)
  expect(contentHash(sparseBytesMin).skipsZeros).toBe(true)
  expect(plainHash().skipsZeros).toBe(false)
})

test("zeros of a large file count as its holes do, in pieces of any length", () => {
  const zeros = Buffer.alloc(2 * zeroBlockBytes)
  const inHoles = hashed(tebibyte, [[4 * zeroBlockBytes, block]])

  const written = [
    [2 * zeroBlockBytes, zeros],
    [4 * zeroBlockBytes, Buffer.concat([block, zeros])],
  ] as const
  expect(hashed(tebibyte, written)).toBe(inHoles)
})

test("another place, byte, length or size of a large file is another hash", () => {
  const other = Buffer.from(block)
  other[100] = (other[100] ?? 0) ^ 1
  const files = [
    hashed(tebibyte, []),
    hashed(tebibyte + zeroBlockBytes, []),
    hashed(tebibyte, [[0, block]]),
    hashed(tebibyte, [[zeroBlockBytes, block]]),
    hashed(tebibyte, [[0, other]]),
    hashed(tebibyte, [[0, block.subarray(1)]]),
    createHash("sha256").update(block).digest("hex"),
  ]

  expect(new Set(files).size).toBe(files.length)
})
