import { toStillframeError } from "@stillframe/domain/errors"
import fc from "fast-check"
import { expect, test } from "vitest"
import { encodeSeekTable, footerBytes, parseSeekTable, seekTableBytes } from "./seek-table.ts"

const isCorrupted = expect.objectContaining({ code: "corrupted" })
const entries = Uint32Array.of(100, 262_144, 7, 300, 262_144, 8, 50, 1000, 9)
const table = encodeSeekTable(entries)

test("a table comes back as it was encoded", () => {
  expect(seekTableBytes(table.subarray(-footerBytes), 450 + table.length)).toBe(table.length)
  const parsed = parseSeekTable(table, 450)
  expect([...parsed.offsets]).toEqual([0, 100, 400, 450])
  expect([...parsed.positions]).toEqual([0, 262_144, 524_288, 525_288])
  expect([...(parsed.checksums ?? [])]).toEqual([7, 8, 9])
})

test("a table without checksums, as other programs write it, is read", () => {
  const bytes = Buffer.alloc(8 + 8 + 9)
  bytes.writeUInt32LE(0x184d2a5e, 0)
  bytes.writeUInt32LE(17, 4)
  bytes.writeUInt32LE(20, 8)
  bytes.writeUInt32LE(1000, 12)
  bytes.writeUInt32LE(1, 16)
  bytes.writeUInt32LE(0x8f92eab1, 21)
  expect(parseSeekTable(bytes, 20)).toMatchObject({ frameCount: 1, checksums: undefined })
})

test("a table that does not account for every byte of the file is refused", () => {
  expect(() => parseSeekTable(table, 449)).toThrow(isCorrupted)
  expect(() => parseSeekTable(table, 451)).toThrow(isCorrupted)
})

test.each([
  ["no bytes at all for a frame", [0, 1000, 0]],
  ["a gigabyte of content", [100, 2 ** 30, 0]],
  ["a frame far longer than its content", [1_000_000, 1000, 0]],
  ["more content than any codec makes of a frame", [9, 9 * 32_768 + 1, 0]],
])("a table that claims %s is refused", (_claim, words) => {
  const [compressed = 0] = words
  expect(() => parseSeekTable(encodeSeekTable(Uint32Array.from(words)), compressed)).toThrow(isCorrupted)
})

test("a footer that claims billions of frames is refused before anything is allocated for them", () => {
  const footer = Buffer.from(table.subarray(-footerBytes))
  footer.writeUInt32LE(0xffff_ffff, 0)
  expect(() => seekTableBytes(footer, Number.MAX_SAFE_INTEGER)).toThrow(isCorrupted)
  footer.writeUInt32LE(1_000_000, 0)
  expect(() => seekTableBytes(footer, 1_000_000)).toThrow(isCorrupted)
})

test.each([0x04, 0x08, 0x10, 0x20, 0x40])("a table of a version with bit %i is refused", (bit) => {
  const other = Buffer.from(table)
  other[other.length - 5]! |= bit
  expect(() => parseSeekTable(other, 450)).toThrow(isCorrupted)
  expect(() => seekTableBytes(other.subarray(-footerBytes), 450 + other.length)).toThrow(isCorrupted)
})

test("a table whose footer denies its checksums is refused", () => {
  const other = Buffer.from(table)
  other[other.length - 5] = 0
  expect(() => parseSeekTable(other, 450)).toThrow(isCorrupted)
})

test("any bytes are a table or corrupted, nothing else", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(1000), (bytes, framesBytes) => {
      const withFooter = Buffer.concat([bytes, table.subarray(-footerBytes)])
      expect(["a table", "corrupted"]).toContain(outcome(bytes, framesBytes))
      expect(["a table", "corrupted"]).toContain(outcome(withFooter, framesBytes))
    }),
  )
})

function outcome(bytes: Uint8Array, framesBytes: number): string {
  try {
    parseSeekTable(bytes, framesBytes)
    return "a table"
  } catch (thrown) {
    return toStillframeError(thrown).code
  }
}
