import { StillframeError } from "@stillframe/domain/errors"
import fc from "fast-check"
import { expect, test } from "vitest"
import { parseQcow2Header } from "./qcow2-header.ts"

/** As long as the tables that the header describes. */
const fileSize = (3 << 16) + 2 * 8

function header(change: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(512)
  bytes.writeUInt32BE(0x51_46_49_fb, 0)
  bytes.writeUInt32BE(3, 4)
  bytes.writeUInt32BE(16, 20)
  bytes.writeBigUInt64BE(1n << 30n, 24)
  bytes.writeUInt32BE(2, 36)
  bytes.writeBigUInt64BE(3n << 16n, 40)
  bytes.writeBigUInt64BE(1n << 16n, 48)
  bytes.writeUInt32BE(1, 56)
  bytes.writeUInt32BE(4, 96)
  bytes.writeUInt32BE(104, 100)
  change(bytes)
  return bytes
}

function withBacking(name: string): Buffer {
  return header((bytes) => {
    bytes.writeUInt32BE(0xe2_79_2a_ca, 104)
    bytes.writeUInt32BE(3, 108)
    bytes.write("raw", 112)
    bytes.writeBigUInt64BE(300n, 8)
    bytes.writeUInt32BE(Buffer.byteLength(name), 16)
    bytes.write(name, 300)
  })
}

test("size, backing file and its format are read", () => {
  expect(parseQcow2Header(header(), "x", fileSize)).toEqual({ virtualSize: 2 ** 30 })
  expect(parseQcow2Header(withBacking("disk0.base"), "x", fileSize)).toEqual({
    virtualSize: 2 ** 30,
    backingFile: "disk0.base",
    backingFormat: "raw",
  })
})

test("an image that is compressed with zstd is read", () => {
  const bytes = header((bytes) => {
    bytes.writeBigUInt64BE(8n, 72)
    bytes.writeUInt32BE(112, 100)
    bytes.writeUInt8(1, 104)
  })
  expect(parseQcow2Header(bytes, "x", fileSize)).toEqual({ virtualSize: 2 ** 30 })
})

test("a file that ends before its tables do is refused", () => {
  expect(() => parseQcow2Header(header(), "x", fileSize - 1)).toThrow(/"x" is refused: the file is cut off;/)
})

test.each<[string, Buffer]>([
  ["something else", Buffer.alloc(512)],
  ["version 1", header((bytes) => bytes.writeUInt32BE(1, 4))],
  ["an unknown feature", header((bytes) => bytes.writeBigUInt64BE(1n << 40n, 72))],
  ["an image that is marked corrupt", header((bytes) => bytes.writeBigUInt64BE(2n, 72))],
  ["clusters that are too small", header((bytes) => bytes.writeUInt32BE(8, 20))],
  ["clusters that are too large", header((bytes) => bytes.writeUInt32BE(31, 20))],
  ["a huge L1 table", header((bytes) => bytes.writeUInt32BE(0xff_ff_ff_ff, 36))],
  ["an L1 table that is too small", header((bytes) => bytes.writeUInt32BE(1, 36))],
  ["an L1 table between clusters", header((bytes) => bytes.writeBigUInt64BE(1n, 40))],
  ["a size that no L1 table is large enough for", header((bytes) => bytes.writeBigUInt64BE(1n << 62n, 24))],
  ["no reference counts", header((bytes) => bytes.writeUInt32BE(0, 56))],
  ["a huge reference count table", header((bytes) => bytes.writeUInt32BE(0xff_ff_ff, 56))],
  ["reference counts of 128 bits", header((bytes) => bytes.writeUInt32BE(7, 96))],
  ["a header that is longer than a cluster", header((bytes) => bytes.writeUInt32BE(1 << 20, 100))],
  [
    "a compression type without its feature",
    header((bytes) => bytes.writeUInt8(1, 104) && bytes.writeUInt32BE(112, 100)),
  ],
  ["a cut header", header().subarray(0, 90)],
  ["an unknown version", header((bytes) => bytes.writeUInt32BE(4, 4))],
  ["an encrypted image", header((bytes) => bytes.writeUInt32BE(2, 32))],
  ["an external data file", header((bytes) => bytes.writeBigUInt64BE(4n, 72))],
  ["the name of a data file", header((bytes) => bytes.writeUInt32BE(0x44_41_54_41, 104))],
  ["a backing name out of bounds", header((bytes) => bytes.writeBigUInt64BE(1n << 40n, 8))],
])("%s is refused", (_what, bytes) => {
  expect(() => parseQcow2Header(bytes, "x", fileSize)).toThrow(
    expect.objectContaining({ code: "invalid_request" }),
  )
})

test("whatever the bytes are, the answer is a header or a refusal", () => {
  const property = fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(511), (noise, at) => {
    const bytes = withBacking("lower")
    bytes.set(noise.subarray(0, bytes.length - at), at)
    return headerOrRefusal(bytes)
  })

  expect(fc.check(property).counterexample).toBeNull()
})

function headerOrRefusal(bytes: Buffer): boolean {
  try {
    return parseQcow2Header(bytes, "x", fileSize).virtualSize >= 0
  } catch (error) {
    return error instanceof StillframeError
  }
}
