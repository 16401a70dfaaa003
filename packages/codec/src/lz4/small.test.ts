import fc from "fast-check"
import { expect, test } from "vitest"
import { liblz4FrameStream } from "./codec.ts"
import { decodeLz4Small } from "./small.ts"

const library = liblz4FrameStream()
library?.[Symbol.dispose]()
const reason = library === undefined ? " (skipped: no liblz4.so.1)" : ""

/** A literal run, then a match that repeats what is `distance` bytes back. */
const sequence = fc.record({
  literals: fc.uint8Array({ maxLength: 20 }),
  distance: fc.integer({ min: 0, max: 30 }),
  length: fc.integer({ min: 4, max: 300 }),
})
const block = fc
  .tuple(fc.array(sequence, { maxLength: 5 }), fc.uint8Array({ maxLength: 20 }))
  .map(([sequences, last]) =>
    Buffer.concat([
      ...sequences.map(({ literals, distance, length }) =>
        Buffer.concat([
          token(literals.length, length - 4),
          ...more(literals.length),
          literals,
          Buffer.from([distance, 0]),
          ...more(length - 4),
        ]),
      ),
      token(last.length, 0),
      ...more(last.length),
      last,
    ]),
  )
const stored = fc.uint8Array({ minLength: 1, maxLength: 20 }).map((bytes) => Buffer.from(bytes))

test.skipIf(reason)(`a tiny frame gives what liblz4 makes of it, or is left to it${reason}`, () => {
  const blocks = fc.array(
    fc.oneof(
      block.map((bytes) => ({ bytes, flag: 0 })),
      stored.map((bytes) => ({ bytes, flag: 0x80 })),
    ),
    { minLength: 1, maxLength: 3 },
  )
  let decoded = 0
  fc.assert(
    fc.property(blocks, fc.boolean(), (parts, linked) => {
      const frame = frameOf(parts, linked)
      const output = Buffer.alloc(70_000)
      const result = decodeLz4Small(frame, 0, output, 0)
      if (result === undefined) return
      decoded++
      expect(output.subarray(0, result.contentEnd).toString("hex")).toBe(byLibrary(frame))
    }),
    { numRuns: 1_000 },
  )
  expect(decoded).toBeGreaterThan(100)
})

test("any bytes are a frame or none, and no byte is written outside the room for it", () => {
  const [header, end] = [frameOf([], false).subarray(0, 7), Buffer.alloc(4)]
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 80 }), fc.nat(100), (bytes, room) => {
      const size = Buffer.from([bytes.length, 0, 0, 0])
      const output = Buffer.alloc(50 + room, 0xaa)

      decodeLz4Small(Buffer.concat([header, size, bytes, end]), 0, output, 50)

      expect(output.subarray(0, 50).equals(Buffer.alloc(50, 0xaa))).toBe(true)
    }),
    { numRuns: 1_000 },
  )
})

function token(literals: number, match: number): Buffer {
  return Buffer.from([(Math.min(literals, 15) << 4) | Math.min(match, 15)])
}

function more(length: number): Buffer[] {
  if (length < 15) return []
  const rest = length - 15
  return [Buffer.alloc(Math.floor(rest / 255), 0xff), Buffer.from([rest % 255])]
}

/** Without checksums but that of the header, in blocks of at most 64 KiB. */
function frameOf(blocks: readonly { bytes: Buffer; flag: number }[], linked: boolean): Buffer {
  const header = linked ? [0x40, 0x40, 0xc0] : [0x60, 0x40, 0x82]
  return Buffer.concat([
    Buffer.from([0x04, 0x22, 0x4d, 0x18, ...header]),
    ...blocks.map(({ bytes, flag }) =>
      Buffer.concat([Buffer.from([bytes.length & 0xff, bytes.length >> 8, 0, flag]), bytes]),
    ),
    Buffer.alloc(4),
  ])
}

/** Undefined for a frame that the library refuses. */
function byLibrary(frame: Buffer): string | undefined {
  using stream = liblz4FrameStream()!
  const output = Buffer.alloc(200_000)
  try {
    const { produced, consumed, frameEnded } = stream.decode(frame, output)
    return frameEnded && consumed === frame.length ? output.subarray(0, produced).toString("hex") : undefined
  } catch {
    return undefined
  }
}
