import { expect, test } from "vitest"
import { assertLevel, chooseCodec, codecFor, codecsInUse, loadCodec } from "./codecs.ts"
import { describeEachCodec } from "./each-codec.ts"
import type { FrameCodec } from "./frame-codec.ts"

const text = Buffer.from("the quick brown fox jumps over the lazy dog ".repeat(5000))
const contents = [Buffer.alloc(0), Buffer.from("x"), text, Buffer.alloc(256 * 1024)]
const levels = { "zstd-napi": [1, 3, 19], "node:zlib": [1, 3, 19], liblz4: [0, 3, 9], "lz4-napi": [0, 2] }

describeEachCodec((_algorithm, id) => {
  test("gives back what it compressed, at every level", () => {
    const codec = loadCodec(id)
    for (const level of levels[id]) {
      for (const content of contents) {
        const frame = compressed(codec, content, level)
        const back = Buffer.alloc(content.length)
        expect(codec.decompressFrame(frame, back)).toBe(content.length)
        expect(back.equals(content)).toBe(true)
      }
    }
  })

  test("refuses what is not exactly one frame", () => {
    const codec = loadCodec(id)
    const frame = compressed(codec, text, 1)
    const skippable = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 1])
    const back = Buffer.alloc(3 * text.length)
    const others = [
      [Buffer.alloc(0)],
      [frame.subarray(0, -1)],
      [frame, Buffer.alloc(1)],
      [frame, Buffer.alloc(4)],
      [frame, frame],
      [frame, skippable],
      [skippable, frame],
    ]
    for (const pieces of others) {
      expect(() => codec.decompressFrame(Buffer.concat(pieces), back)).toThrow(Error)
      // What went wrong before must not stay behind in the binding's context.
      expect(codec.decompressFrame(frame, back)).toBe(text.length)
    }
  })

  test("reads an empty frame after one that ended too early", () => {
    const codec = loadCodec(id)
    const frame = compressed(codec, text, 1)

    expect(() =>
      codec.decompressFrame(frame.subarray(0, frame.length / 2), Buffer.alloc(text.length)),
    ).toThrow(Error)

    expect(codec.decompressFrame(compressed(codec, Buffer.alloc(0), 1), Buffer.alloc(0))).toBe(0)
  })

  test("refuses a frame that is altered or larger than its destination, and leaves what lies behind", () => {
    const codec = loadCodec(id)
    const frame = compressed(codec, text, 1)
    const altered = Buffer.from(frame)
    altered[frame.length - 1]! ^= 1
    const back = Buffer.alloc(text.length)

    expect(() => codec.decompressFrame(altered, back)).toThrow(Error)
    back.fill(7)
    for (const length of [0, 1, 1000, text.length - 1]) {
      expect(() => codec.decompressFrame(frame, back.subarray(0, length))).toThrow(Error)
      expect(back.subarray(length).every((byte) => byte === 7)).toBe(true)
    }
    expect(codec.decompressFrame(frame, back)).toBe(text.length)
  })

  test("refuses a frame that expands to more than its destination without taking memory for it", () => {
    const codec = loadCodec(id)
    const frame = compressed(codec, Buffer.alloc(256 * 2 ** 20), 1)
    const before = memoryPeak()
    expect(() => codec.decompressFrame(frame, Buffer.alloc(256 * 1024))).toThrow(Error)
    expect(memoryPeak() - before).toBeLessThan(32 * 2 ** 20)
  })
})

test("the codec that is chosen is the one in use and named", () => {
  const best = codecFor("zstd")
  chooseCodec("zstd", "node:zlib")
  expect(codecsInUse()).toEqual({
    zstd: expect.stringMatching(/^node:zlib/),
    lz4: loadCodec(codecFor("lz4")).name,
  })
  chooseCodec("zstd", best)
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
  expect(() => assertLevel("lz4", 3, loadCodec("lz4-napi"))).toThrow(
    expect.objectContaining({ code: "codec_unavailable", message: expect.stringContaining("liblz4") }),
  )
  expect(() => assertLevel("lz4", 2, loadCodec("lz4-napi"))).not.toThrow()
})

function compressed(codec: FrameCodec, content: Uint8Array, level: number): Buffer {
  const frame = Buffer.alloc(codec.compressBound(content.length))
  return frame.subarray(0, codec.compressFrame(content, frame, level))
}

/** The most bytes this process has held at once. */
function memoryPeak(): number {
  return process.resourceUsage().maxRSS * 1024
}
