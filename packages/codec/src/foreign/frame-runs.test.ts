import { toStillframeError } from "@stillframe/domain/errors"
import fc from "fast-check"
import { expect, test } from "vitest"
import { streamReader } from "../frames/file-reader.ts"
import { foreignContent } from "./foreign.ts"
import { frameRuns } from "./frame-runs.ts"
import {
  lz4Part,
  mergedPart,
  type Part,
  skippablePart,
  tableOf,
  zerosPart,
  zstdPart,
} from "./other-writers.ts"

const line = (index: number): Buffer => Buffer.from(`${index}: a line of a log, a line of a log\n`)
/** A hundred frames again and again, which take long to make. */
function lines(count: number, part: (content: Buffer) => Part): Part[] {
  const parts = Array.from({ length: 100 }, (_, index) => part(line(index)))
  return Array.from({ length: count }, (_, index) => parts[index % parts.length]!)
}

async function read(
  file: Buffer,
  { pieceBytes = file.length, hasChecksums = false } = {},
): Promise<{ content: Buffer; pieces: number }> {
  async function* pieces(): AsyncGenerator<Buffer> {
    for (let at = 0; at < file.length; at += pieceBytes) yield file.subarray(at, at + pieceBytes)
  }
  const found = { algorithm: undefined, endsInTable: false }
  const content: Buffer[] = []
  for await (const piece of foreignContent(streamReader(pieces()), found, { hasTable: false, hasChecksums }))
    content.push(Buffer.from(piece))
  return { content: Buffer.concat(content), pieces: content.length }
}

test.each([
  ["zstd", (content: Buffer) => zstdPart(content)],
  ["zstd with checksums", (content: Buffer) => zstdPart(content, { checksum: true })],
  ["zstd that do not tell their size", (content: Buffer) => zstdPart(content, { size: false })],
  ["LZ4", lz4Part],
  ["zstd between skippable", (content: Buffer) => mergedPart(skippablePart(4), zstdPart(content))],
])("ten thousand tiny frames, %s, are read together", async (_kind, part) => {
  const whole = mergedPart(...lines(10_000, part))

  const { content, pieces } = await read(whole.bytes)

  expect(content.equals(whole.content)).toBe(true)
  expect(pieces).toBeLessThan(5)
})

test("frames of every kind come back in order, wherever the pieces of a pipe end", async () => {
  const part = fc.oneof(
    fc
      .record({ checksum: fc.boolean(), size: fc.boolean(), text: fc.string() })
      .map(({ text, ...options }) => zstdPart(Buffer.from(text.repeat(50)), options)),
    fc.string().map((text) => lz4Part(Buffer.from(text.repeat(50)))),
    fc.constantFrom(skippablePart(0), skippablePart(9), zerosPart(3), lz4Part(Buffer.alloc(300_000))),
  )
  const files = fc.array(part, { minLength: 1, maxLength: 12 }).map((parts) => {
    const all = [zstdPart(Buffer.from("first")), ...parts]
    return mergedPart(...all, { bytes: tableOf(all), content: Buffer.alloc(0) })
  })
  await fc.assert(
    fc.asyncProperty(files, fc.integer({ min: 1, max: 700 }), async ({ bytes, content }, pieceBytes) => {
      expect((await read(bytes, { pieceBytes })).content.equals(content)).toBe(true)
    }),
    { numRuns: 40 },
  )
})

test("the good frames before a bad one are read, and it is told", async () => {
  const good = mergedPart(...lines(100, (content) => zstdPart(content)))
  const bad = zstdPart(line(100), { checksum: true })
  bad.bytes[bad.bytes.length - 1]! ^= 1
  const file = mergedPart(good, bad, zstdPart(line(101)))
  const run = frameRuns(() => undefined, { hash: false })(file.bytes)

  expect(run.taken).toBe(good.bytes.length)
  expect(run.content.equals(good.content)).toBe(true)
  await expect(read(file.bytes)).rejects.toMatchObject({ code: "corrupted" })
})

test("twenty thousand frames are held against a table, one by one", async () => {
  const parts = lines(20_000, (content) => zstdPart(content))
  const { bytes, content } = mergedPart(...parts)
  const table = tableOf(parts, { checksums: true })
  const reading = { hasChecksums: true }

  expect((await read(Buffer.concat([bytes, table]), reading)).content.equals(content)).toBe(true)
  // The checksum of the first frame, and of one in the middle.
  for (const at of [8 + 8, 8 + 12 * 9_999 + 8]) {
    const other = Buffer.from(table)
    other[at]! ^= 1
    await expect(read(Buffer.concat([bytes, other]), reading)).rejects.toMatchObject({ code: "corrupted" })
  }
})

test("any byte of a tiny LZ4 frame changed gives the right content or an error", async () => {
  const file = mergedPart(lz4Part(Buffer.from("which repeats, repeats, repeats")), lz4Part(line(2)))
  const changes = fc.tuple(fc.nat(file.bytes.length - 1), fc.integer({ min: 1, max: 255 }))
  await fc.assert(
    fc.asyncProperty(changes, async ([at, mask]) => {
      const changed = Buffer.from(file.bytes)
      changed[at]! ^= mask
      const seen = await read(changed).then(
        ({ content }) => (content.equals(file.content) ? "right" : "other content"),
        (error: unknown) => toStillframeError(error).code,
      )
      expect(["right", "corrupted", "not_supported"]).toContain(seen)
    }),
    { numRuns: 300 },
  )
})
