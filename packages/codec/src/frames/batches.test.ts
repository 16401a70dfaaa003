import { expect, test } from "vitest"
import { batchCount, batchesOf, batchFrames } from "./batches.ts"
import { encodeSeekTable, parseSeekTable } from "./seek-table.ts"

const mib = 2 ** 20

function batchesFor(sizes: readonly number[]): { first: number; end: number }[] {
  const entries = Uint32Array.from(sizes.flatMap((bytes) => [Math.ceil(bytes / 10) + 9, bytes, 0]))
  const framesBytes = sizes.reduce((sum, bytes) => sum + Math.ceil(bytes / 10) + 9, 0)
  const table = parseSeekTable(encodeSeekTable(entries), framesBytes)
  const frames = { table, batches: batchesOf(table) }
  return Array.from({ length: batchCount(frames) }, (_, batch) => batchFrames(frames, batch))
}

test("frames of 256 KiB go eight at a time", () => {
  expect(batchesFor(Array.from({ length: 17 }, () => mib / 4))).toEqual([
    { first: 0, end: 8 },
    { first: 8, end: 16 },
    { first: 16, end: 17 },
  ])
})

test("one large frame does not part the tiny ones around it", () => {
  const tiny = Array.from({ length: 5_000 }, () => 64)

  expect(batchesFor([...tiny, 8 * mib, ...tiny])).toEqual([
    { first: 0, end: 5_000 },
    { first: 5_000, end: 5_001 },
    { first: 5_001, end: 10_001 },
  ])
})

test("frames without content end a batch by what they take in the file", () => {
  const batches = batchesFor(Array.from({ length: 1_000_000 }, () => 0))

  expect(batches).toHaveLength(Math.ceil((9 * 1_000_000) / (4 * mib)))
  expect(batches.at(-1)?.end).toBe(1_000_000)
})

test("an empty table has no batch", () => {
  expect(batchesFor([])).toEqual([])
})
