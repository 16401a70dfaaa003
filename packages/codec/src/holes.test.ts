import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { holesOf } from "@stillframe/storage/holes"
import fc from "fast-check"
import { afterAll, expect, test } from "vitest"
import { compressFile } from "./compress.ts"
import { decompressFile } from "./decompress.ts"
import { openSeekable } from "./frames/seekable.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-holes-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const source = join(folder, "source")
const packed = join(folder, "packed")
const unpacked = join(folder, "unpacked")
const frame = 256 * 1024
const mebibyte = 2 ** 20
const gibibyte = 2 ** 30
const data = Buffer.alloc(mebibyte, "some text that repeats, and numbers: 0123456789 ")

const reason = keepsHoles() ? "" : " (skipped: not Linux, or the temporary folder keeps no holes)"

test.skipIf(reason)(`64 GiB with 1 MiB of data: only the data is read${reason}`, async () => {
  const position = 37 * gibibyte + 5000
  sparseFile(64 * gibibyte, [[position, data]])

  const before = bytesReadByThisProcess()
  const sizes = await pack()
  expect(bytesReadByThisProcess() - before).toBeLessThan(16 * mebibyte)

  expect(sizes).toEqual({ uncompressedBytes: 64 * gibibyte, compressedBytes: statSync(packed).size })
  expect(sizes.compressedBytes).toBeLessThan(16 * mebibyte)
  await using file = await openSeekable(packed)
  expect(file.uncompressedBytes).toBe(64 * gibibyte)
  const around = await file.read(position - mebibyte, 3 * mebibyte)
  expect(Buffer.concat([Buffer.alloc(mebibyte), data, Buffer.alloc(mebibyte)]).equals(around)).toBe(true)
  expect(await file.read(64 * gibibyte - 10, 100)).toEqual(Buffer.alloc(10))
})

test("data at any places between holes comes back", async () => {
  const places = fc.array(fc.tuple(fc.nat(9 * frame), fc.integer({ min: 1, max: frame })), { maxLength: 6 })
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 10 * frame }), places, async (size, pieces) => {
      sparseFile(
        size,
        pieces.map(([position, length]) => [position, data.subarray(0, length)]),
      )
      await pack()
      rmSync(unpacked, { force: true })
      await decompressFile({ source: packed, destination: unpacked, threads: 2, signal })
      expect(readFileSync(unpacked).equals(readFileSync(source))).toBe(true)
    }),
    { numRuns: 30 },
  )
})

test("behind the end of a file that became shorter there are no holes", () => {
  sparseFile(8 * frame, [])
  const fd = openSync(source, "r")
  truncateSync(source, 2 * frame)
  const holes = holesOf(fd, 8 * frame)
  expect(holes.cover(4 * frame, frame)).toBe(false)
  closeSync(fd)
})

function sparseFile(size: number, pieces: [number, Buffer][]): void {
  const fd = openSync(source, "w")
  for (const [position, bytes] of pieces) writeSync(fd, bytes, 0, bytes.length, position)
  ftruncateSync(fd, size)
  closeSync(fd)
}

function pack(): Promise<{ uncompressedBytes: number; compressedBytes: number }> {
  rmSync(packed, { force: true })
  return compressFile({ source, destination: packed, algorithm: "zstd", level: 1, threads: 2, signal })
}

function keepsHoles(): boolean {
  sparseFile(gibibyte, [])
  return process.platform === "linux" && statSync(source).blocks === 0
}

/** proc(5): all that its threads asked read calls for, from wherever it came. */
function bytesReadByThisProcess(): number {
  return Number(/rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))?.[1])
}
