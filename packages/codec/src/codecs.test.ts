import { expect, test } from "vitest"
import { assertLevel, codecsInUse, type FrameCodec, loadCodec } from "./codecs.ts"
import { liblz4Codec, lz4NapiCodec } from "./lz4-codec.ts"
import { zlibZstdCodec, zstdNapiCodec } from "./zstd-codec.ts"

const bindings: [string, () => FrameCodec | undefined, number[]][] = [
  ["zstd-napi", zstdNapiCodec, [1, 3, 19]],
  ["node:zlib", zlibZstdCodec, [1, 3, 19]],
  ["liblz4", liblz4Codec, [0, 3, 9]],
  ["lz4-napi", lz4NapiCodec, [0, 2]],
]
const text = Buffer.from("the quick brown fox jumps over the lazy dog ".repeat(5000))
const contents = [Buffer.alloc(0), Buffer.from("x"), text, Buffer.alloc(256 * 1024)]

for (const [name, load, levels] of bindings) {
  const codec = load()

  test.skipIf(!codec)(`${name} gives back what it compressed, at every level`, () => {
    for (const level of levels) {
      for (const content of contents) {
        const frame = compressed(codec!, content, level)
        const back = Buffer.alloc(content.length)
        expect(codec!.decompressFrame(frame, back)).toBe(content.length)
        expect(back.equals(content)).toBe(true)
      }
    }
  })

  test.skipIf(!codec)(
    `${name} refuses a frame that is cut off, altered or larger than its destination`,
    () => {
      const frame = compressed(codec!, text, levels[0]!)
      const altered = Buffer.from(frame)
      altered[frame.length - 1]! ^= 1
      const back = Buffer.alloc(text.length)

      expect(() => codec!.decompressFrame(frame.subarray(0, -1), back)).toThrow(Error)
      expect(() => codec!.decompressFrame(altered, back)).toThrow(Error)
      expect(() => codec!.decompressFrame(frame, back.subarray(0, 1000))).toThrow(Error)
      // What went wrong before must not stay behind in the binding's context.
      expect(codec!.decompressFrame(frame, back)).toBe(text.length)
    },
  )
}

test("each algorithm has a binding, and its name is known", () => {
  expect(codecsInUse()).toEqual({ zstd: loadCodec("zstd").name, lz4: loadCodec("lz4").name })
})

test("levels outside the algorithm's range are refused", () => {
  for (const level of [0, 20, 1.5, Number.NaN]) {
    expect(() => assertLevel("zstd", level)).toThrow(expect.objectContaining({ code: "invalid_request" }))
  }
  for (const level of [-1, 10]) {
    expect(() => assertLevel("lz4", level)).toThrow(expect.objectContaining({ code: "invalid_request" }))
  }
})

test("an lz4 level that only the library has names the library", () => {
  expect(() => assertLevel("lz4", 3, lz4NapiCodec())).toThrow(
    expect.objectContaining({ code: "codec_unavailable", message: expect.stringContaining("liblz4") }),
  )
  expect(() => assertLevel("lz4", 2, lz4NapiCodec())).not.toThrow()
})

function compressed(codec: FrameCodec, content: Uint8Array, level: number): Buffer {
  const frame = Buffer.alloc(codec.compressBound(content.length))
  return frame.subarray(0, codec.compressFrame(content, frame, level))
}
