import { StillframeError } from "@stillframe/domain/errors"
import fc from "fast-check"
import { expect, test } from "vitest"
import { parseQcow2Header } from "./qcow2-header.ts"

function header(change: (bytes: Buffer) => void = () => {}): Buffer {
  const bytes = Buffer.alloc(512)
  bytes.writeUInt32BE(0x51_46_49_fb, 0)
  bytes.writeUInt32BE(3, 4)
  bytes.writeBigUInt64BE(1n << 30n, 24)
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
  expect(parseQcow2Header(header(), "x")).toEqual({ virtualSize: 2 ** 30 })
  expect(parseQcow2Header(withBacking("disk0.base"), "x")).toEqual({
    virtualSize: 2 ** 30,
    backingFile: "disk0.base",
    backingFormat: "raw",
  })
})

test.each<[string, Buffer]>([
  ["something else", Buffer.alloc(512)],
  ["a cut header", header().subarray(0, 90)],
  ["an unknown version", header((bytes) => bytes.writeUInt32BE(4, 4))],
  ["an encrypted image", header((bytes) => bytes.writeUInt32BE(2, 32))],
  ["an external data file", header((bytes) => bytes.writeBigUInt64BE(4n, 72))],
  ["the name of a data file", header((bytes) => bytes.writeUInt32BE(0x44_41_54_41, 104))],
  ["a backing name out of bounds", header((bytes) => bytes.writeBigUInt64BE(1n << 40n, 8))],
])("%s is refused", (_what, bytes) => {
  expect(() => parseQcow2Header(bytes, "x")).toThrow(expect.objectContaining({ code: "invalid_request" }))
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
    return parseQcow2Header(bytes, "x").virtualSize >= 0
  } catch (error) {
    return error instanceof StillframeError
  }
}
