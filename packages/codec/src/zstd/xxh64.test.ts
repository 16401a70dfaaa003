import fc from "fast-check"
import { expect, test } from "vitest"
import { zlibZstdCodec } from "./codec.ts"
import { xxh64, xxh64Low32 } from "./xxh64.ts"

const codec = zlibZstdCodec()

test("the hash is the one that zstd writes behind a frame", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400, size: "max" }), (content) => {
      expect(xxh64Low32(content)).toBe(hashByZstd(content))
    }),
  )
})

test("the hash of pieces is that of the whole", () => {
  const pieces = fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 8 })
  fc.assert(
    fc.property(pieces, (parts) => {
      const hash = xxh64()
      for (const part of parts) hash.update(part)
      expect(hash.low32()).toBe(xxh64Low32(Buffer.concat(parts)))
    }),
  )
})

test("bytes with every bit set carry from half to half", () => {
  for (const bytes of [31, 32, 33, 64, 4096, 100_003]) {
    const content = Buffer.alloc(bytes, 0xff)
    expect(xxh64Low32(content)).toBe(hashByZstd(content))
  }
})

function hashByZstd(content: Uint8Array): number {
  const frame = Buffer.alloc(codec.compressBound(content.length))
  return frame.readUInt32LE(codec.compressFrame(content, frame, 1) - 4)
}
