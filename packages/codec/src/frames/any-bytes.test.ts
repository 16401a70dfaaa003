import { createHash } from "node:crypto"
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { toStillframeError } from "@stillframe/domain/errors"
import fc from "fast-check"
import { afterAll, beforeAll, expect, test } from "vitest"
import { compressFile } from "../compress.ts"
import { decompressFile } from "../decompress.ts"
import { verifyFile } from "../verify.ts"
import { codecFor } from "./codecs.ts"
import { describeEachCodec } from "./each-codec.ts"
import { encodeSeekTable, footerBytes } from "./seek-table.ts"
import { openSeekable } from "./seekable.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-any-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const isCorrupted = { code: "corrupted" }
const frame = 256 * 1024
const damaged = join(folder, "damaged")
const unpacked = join(folder, "unpacked")

/** The longest header that a frame may have: zstd's 18 bytes, LZ4's 19. */
const headerBytes = 19
const contents = {
  empty: text(0),
  "1 byte": text(1),
  "exactly one frame": text(frame),
  "one byte more": text(frame + 1),
  "several frames, some of zeros": withZeros(text(4 * frame + 1000)),
}

describeEachCodec((algorithm, codec) => {
  for (const [name, content] of Object.entries(contents)) {
    const packed = join(folder, `${codec} ${name}`)
    beforeAll(async () => {
      const source = join(folder, "source")
      writeFileSync(source, content)
      await compressFile({ source, destination: packed, algorithm, level: 1, threads: 1, signal })
    })

    test(`${name}: every byte of headers, table and footer flipped`, async () => {
      const bytes = readFileSync(packed)
      for (const at of structure(bytes)) {
        const [mask] = fc.sample(fc.integer({ min: 1, max: 255 }), { numRuns: 1, seed: at })
        const flipped = Buffer.from(bytes)
        flipped[at]! ^= mask!
        expect(["right", "corrupted"], `byte ${at} with ${mask}`).toContain(await outcome(flipped, content))
      }
    })

    test(`${name}: any bytes in any place of the file`, async () => {
      const bytes = readFileSync(packed)
      const splices = fc.tuple(fc.nat(bytes.length), fc.nat(16), fc.uint8Array({ maxLength: 16 }))
      await fc.assert(
        fc.asyncProperty(splices, async ([at, removed, inserted]) => {
          const spliced = [bytes.subarray(0, at), inserted, bytes.subarray(at + removed)]
          expect(["right", "corrupted"]).toContain(await outcome(Buffer.concat(spliced), content))
        }),
        { numRuns: 20 },
      )
    })
  }

  test("a skippable frame of another kind is no seek table", async () => {
    const bytes = readFileSync(join(folder, `${codec} one byte more`))
    for (const kind of [0x50, 0x51, 0x5f]) {
      const other = Buffer.from(bytes)
      other[tableStart(bytes)] = kind
      expect(await outcome(other, contents["one byte more"]), `kind ${kind}`).toBe("corrupted")
    }
  })

  test("terabytes claimed by a table are refused before memory is taken for them", async () => {
    const magic = readFileSync(join(folder, `${codec} 1 byte`)).subarray(0, 4)
    const frameCount = 400_000
    for (const compressedBytes of [9, 300]) {
      writeFileSync(damaged, magic)
      truncateSync(damaged, frameCount * compressedBytes)
      const claim = [compressedBytes, 8 * 2 ** 20, 0]
      const entries = Uint32Array.from({ length: 3 * frameCount }, (_, word) => claim[word % 3]!)
      appendFileSync(damaged, encodeSeekTable(entries))
      const before = process.memoryUsage().arrayBuffers
      await expect(readAll()).rejects.toMatchObject(isCorrupted)
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(128 * 2 ** 20)
      expect(await unpack(Buffer.alloc(0))).toBe("corrupted")
    }
  })
})

// Without its table at the end a file gets as far as no codec, so one for each algorithm will do.
test.each(["zstd", "lz4"] as const)(
  "%s: cut off anywhere in headers, table and footer",
  async (algorithm) => {
    for (const [name, content] of Object.entries(contents)) {
      const bytes = readFileSync(join(folder, `${codecFor(algorithm)} ${name}`))
      for (const at of structure(bytes)) {
        expect(await outcome(bytes.subarray(0, at), content), `${name} cut at ${at}`).toBe("corrupted")
      }
    }
  },
)

/** What reading, decompressing and verifying say of these bytes; all three when they differ. */
async function outcome(bytes: Uint8Array, content: Buffer): Promise<string> {
  writeFileSync(damaged, bytes)
  const read = readAll().then((all) => rightOrWrong(all, content), codeOf)
  const seen = [await read, await unpack(content), await verify(content)]
  return [...new Set(seen)].join(", ")
}

async function readAll(): Promise<Uint8Array> {
  await using file = await openSeekable(damaged)
  return await file.read(0, file.uncompressedBytes)
}

async function unpack(content: Buffer): Promise<string> {
  rmSync(unpacked, { force: true })
  try {
    await decompressFile({ source: damaged, destination: unpacked, threads: 1, signal })
    return rightOrWrong(readFileSync(unpacked), content)
  } catch (thrown) {
    return existsSync(unpacked) ? "left a rest" : codeOf(thrown)
  }
}

const hashes = new Map<Buffer, string>()

async function verify(content: Buffer): Promise<string> {
  const sha256 = hashes.get(content) ?? createHash("sha256").update(content).digest("hex")
  hashes.set(content, sha256)
  const facts = { sha256, uncompressedBytes: content.length, threads: 1, signal }
  return verifyFile({ path: damaged, ...facts }).then(() => "right", codeOf)
}

function rightOrWrong(read: Uint8Array, content: Buffer): string {
  return content.equals(read) ? "right" : "wrong bytes"
}

function codeOf(thrown: unknown): string {
  return toStillframeError(thrown).code
}

/**
 * The header of each frame and its entry in the table, one frame of each kind, and the table's own header and
 * footer.
 */
function structure(bytes: Buffer): number[] {
  const table = tableStart(bytes)
  const entries = Array.from(
    { length: bytes.readUInt32LE(bytes.length - footerBytes) },
    (_, frame) => table + 8 + 12 * frame,
  )
  const places = range(table, 8).concat(range(bytes.length - footerBytes, footerBytes))
  const seen = new Set<string>()
  let start = 0
  for (const entry of entries) {
    const compressedBytes = bytes.readUInt32LE(entry)
    const kind = bytes.toString("hex", entry, entry + 12)
    if (!seen.has(kind))
      places.push(...range(start, Math.min(headerBytes, compressedBytes)), ...range(entry, 12))
    seen.add(kind)
    start += compressedBytes
  }
  return places
}

function range(start: number, length: number): number[] {
  return Array.from({ length }, (_, index) => start + index)
}

function tableStart(bytes: Buffer): number {
  return bytes.length - footerBytes - 12 * bytes.readUInt32LE(bytes.length - footerBytes) - 8
}

function text(bytes: number): Buffer {
  return Buffer.alloc(bytes, "some text that repeats, and numbers: 0123456789 ")
}

function withZeros(content: Buffer): Buffer {
  return content.fill(0, frame, 3 * frame)
}
