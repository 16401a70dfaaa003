import { createHash } from "node:crypto"
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { toStillframeError } from "@stillframe/domain/errors"
import fc from "fast-check"
import { afterAll, expect, test } from "vitest"
import { anyContent } from "../frames/any-content.ts"
import { decompressAny, verifyAny } from "../frames/any-file.ts"
import { mergedPart, seekableFile, skippablePart, tableOf, zerosPart, zstdPart } from "./other-writers.ts"
import type { CompressedSource } from "./source.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-others-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const work = { threads: 2, signal }
const packed = join(folder, "packed")
const unpacked = join(folder, "unpacked")

const one = zstdPart(Buffer.from("the content of the first frame, the content"))
const two = zstdPart(Buffer.from("another frame's content, which repeats, repeats"))
const three = zstdPart(Buffer.alloc(70_000, "and a third"), { checksum: true })
const none = zstdPart(Buffer.alloc(0))
const large = zerosPart(72)
const [skipped, table] = [skippablePart(9), skippablePart(30, 0x5e)]
const seekable = seekableFile([one, two, three])
const checked = seekableFile([one, two, three], { checksums: true })
const content = Buffer.concat([one.content, two.content, three.content])
const bytesOf = (...parts: { bytes: Buffer }[]): Buffer => Buffer.concat(parts.map(({ bytes }) => bytes))

const healthy: Readonly<Record<string, readonly [file: Buffer, content: Buffer]>> = {
  "with the checksums of the table alone": [checked, content],
  "without checksums": [seekable, content],
  "with frames of more than 8 MiB": [
    seekableFile([one, large], { checksums: true }),
    Buffer.concat([one.content, large.content]),
  ],
  "with frames without content": [seekableFile([none, one, none], { checksums: true }), one.content],
  "with a table alone": [seekableFile([]), Buffer.alloc(0)],
  "with several frames in an entry": [seekableFile([mergedPart(one, two), three]), content],
  "with skippable frames in the table": [
    seekableFile([skipped, one, table, two, three, skipped], { checksums: true }),
    content,
  ],
  "with skippable frames that no table lists": [
    bytesOf(skipped, one, skipped, two, three, { bytes: tableOf([one, two, three]) }, skipped),
    content,
  ],
  joined: [
    Buffer.concat([checked, seekable, seekableFile([]), checked]),
    Buffer.concat([content, content, content]),
  ],
  "joined with a file without a table": [
    Buffer.concat([one.bytes, seekable, two.bytes]),
    Buffer.concat([one.content, content, two.content]),
  ],
  "followed by zeros": [Buffer.concat([checked, Buffer.alloc(5_003)]), content],
  "without a table": [bytesOf(one, skipped, two, three), content],
}

for (const [name, [file, expected]] of Object.entries(healthy)) {
  test(`a file ${name} is read, verified, and read in parts, also from a pipe`, async () => {
    const sha256 = createHash("sha256").update(expected).digest("hex")
    writeFileSync(packed, file)
    for (const source of [() => packed, () => createReadStream(packed, { highWaterMark: 7_000 })]) {
      expect(await verifyAny(source(), work)).toMatchObject({ sha256, uncompressedBytes: expected.length })
      expect((await unpack(source())).equals(expected)).toBe(true)
      expect((await read(source())).equals(expected)).toBe(true)
      expect((await read(source(), 40, 50)).equals(expected.subarray(40, 90))).toBe(true)
    }
  })
}

const shortTable = tableOf([one, two])
const damaged: Readonly<Record<string, Buffer>> = {
  "with another checksum in the table": changed(checked, -13),
  "with another size in the table": changed(seekable, -13),
  "that lacks its first frame": checked.subarray(one.bytes.length),
  "that lacks a frame": Buffer.concat([one.bytes, checked.subarray(bytesOf(one, two).length)]),
  "with two frames in each other's places": bytesOf(two, one, three, { bytes: tableOf([one, two, three]) }),
  "with a table for other frames": Buffer.concat([bytesOf(one, three), shortTable]),
  "joined, with damage in the middle": Buffer.concat([checked, changed(checked, 12), checked]),
  "that is cut off within a frame": seekable.subarray(0, one.bytes.length + 20),
  "followed by something else": Buffer.concat([seekable, Buffer.alloc(9), Buffer.from("x")]),
  "that is empty": Buffer.alloc(0),
  "of one byte": Buffer.from("x"),
  "that begins with something else": Buffer.concat([Buffer.from("what"), seekable.subarray(4)]),
}

test.each(Object.entries(damaged))("a file %s is corrupted and leaves nothing", async (_name, file) => {
  writeFileSync(packed, file)
  await expect(verifyAny(packed, work)).rejects.toMatchObject({ code: "corrupted" })
  await expect(unpack(packed)).rejects.toMatchObject({ code: "corrupted" })
  expect(existsSync(unpacked)).toBe(false)
  await expect(read(packed)).rejects.toMatchObject({ code: "corrupted" })
})

const unsupported: Readonly<Record<string, readonly [file: Buffer, why: string]>> = {
  "that needs a dictionary": [changed(one.bytes, 4, 1), "zstd -D"],
  "whose zeros may be missing frames": [
    Buffer.concat([one.bytes, Buffer.alloc(9)]),
    `truncate -s ${one.bytes.length}`,
  ],
  "of a later version of the format": [changed(seekable, -5, 0x40), "unknown version"],
  "of an old zstd": [Buffer.from([0x27, 0xb5, 0x2f, 0xfd, 0]), "old formats"],
  "of LZ4's legacy format": [Buffer.from([0x02, 0x21, 0x4c, 0x18, 1, 0, 0, 0, 0]), "lz4 command"],
  "of gzip": [Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]), "another kind"],
}

test.each(Object.entries(unsupported))("a file %s is not called damaged", async (_name, [file, why]) => {
  writeFileSync(packed, file)
  const refusal = { code: "not_supported", message: expect.stringContaining(why) }
  await expect(verifyAny(packed, work)).rejects.toMatchObject(refusal)
  await expect(unpack(packed)).rejects.toMatchObject(refusal)
  await expect(read(packed)).rejects.toMatchObject(refusal)
})

test("any byte of another writer's file changed gives the right content or an error, never other content", async () => {
  const file = seekableFile([skipped, one, two], { checksums: true })
  const expected = Buffer.concat([one.content, two.content])
  const changes = fc.tuple(fc.nat(file.length - 1), fc.integer({ min: 1, max: 255 }))
  await fc.assert(
    fc.asyncProperty(changes, async ([at, mask]) => {
      writeFileSync(packed, changed(file, at, mask))
      const seen = await unpack(packed).then(
        (bytes) => (bytes.equals(expected) ? "right" : "other content"),
        (error: unknown) => toStillframeError(error).code,
      )
      expect(["right", "corrupted", "not_supported"]).toContain(seen)
    }),
    { numRuns: 150 },
  )
})

async function unpack(source: CompressedSource): Promise<Buffer> {
  rmSync(unpacked, { force: true })
  await decompressAny({ source, destination: unpacked, ...work })
  return readFileSync(unpacked)
}

async function read(source: CompressedSource, offset?: number, length?: number): Promise<Buffer> {
  const pieces = []
  for await (const piece of anyContent(source, { offset, length, ...work })) pieces.push(piece)
  return Buffer.concat(pieces)
}

/** A copy with bits of one byte flipped; a negative place counts from the end. */
function changed(file: Buffer, at: number, mask = 0xff): Buffer {
  const copy = Buffer.from(file)
  copy[at < 0 ? file.length + at : at]! ^= mask
  return copy
}
