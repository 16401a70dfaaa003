import { expect, test } from "vitest"
import { crc64 } from "./crc64.ts"

test("the checksum is the one that Firecracker's own documentation gives for sixteen bytes of 123", () => {
  expect(crc64(Buffer.alloc(16, 123))).toBe(0x29d5_3572_1632_6566n)
})

test("bytes that end in their checksum have the checksum zero", () => {
  const bytes = Buffer.from("a state file")
  const checksum = Buffer.alloc(8)
  checksum.writeBigUInt64LE(crc64(bytes))

  expect(crc64(Buffer.concat([bytes, checksum]))).toBe(0n)
})
