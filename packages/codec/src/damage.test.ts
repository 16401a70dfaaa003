import { createHash, randomBytes } from "node:crypto"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { toStillframeError } from "@stillframe/domain/errors"
import fc from "fast-check"
import { afterAll, beforeAll, expect, test } from "vitest"
import { compressFile } from "./compress.ts"
import { decompressFile, decompressFrames } from "./decompress.ts"
import { describeEachCodec } from "./frames/each-codec.ts"
import { encodeSeekTable } from "./frames/seek-table.ts"
import { openSeekable } from "./frames/seekable.ts"
import { sha256File } from "./hash.ts"
import { verifyFile } from "./verify.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-damage-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const isCorrupted = { code: "corrupted" }
const frame = 256 * 1024
const image = Buffer.alloc(3 * frame + 1000, "some text that repeats, and numbers: 0123456789 ")
image.fill(0, frame, 2 * frame)
const sha256 = createHash("sha256").update(image).digest("hex")
const source = join(folder, "image")
const damaged = join(folder, "damaged")
const unpacked = join(folder, "unpacked")

beforeAll(() => writeFileSync(source, image))

describeEachCodec((algorithm, codec) => {
  const whole = join(folder, codec)
  const pack = (): Promise<unknown> =>
    compressFile({ source, destination: whole, algorithm, level: 1, threads: 2, signal })
  beforeAll(pack)

  test("a flipped bit anywhere is noticed or harmless, never wrong bytes", async () => {
    const bytes = readFileSync(whole)
    const bits = fc.tuple(fc.nat(bytes.length - 1), fc.nat(7))
    await fc.assert(
      fc.asyncProperty(bits, async ([at, bit]) => {
        const flipped = Buffer.from(bytes)
        flipped[at]! ^= 1 << bit
        writeFileSync(damaged, flipped)
        expect(["the right bytes", "corrupted, nothing left"]).toContain(await outcome())
      }),
      { numRuns: 75 },
    )
  })

  test("a file cut off anywhere is corrupted", async () => {
    const bytes = readFileSync(whole)
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), async (length) => {
        writeFileSync(damaged, bytes.subarray(0, length))
        await expect(openSeekable(damaged)).rejects.toMatchObject(isCorrupted)
        await expect(unpack()).rejects.toMatchObject(isCorrupted)
        expect(existsSync(unpacked)).toBe(false)
      }),
      { numRuns: 25 },
    )
  })

  test("intact frames in each other's places are corrupted", async () => {
    const bytes = readFileSync(whole)
    const { words, frames } = parts(bytes)
    const [first, second, ...rest] = frames
    // The table tells the sizes in their new order but the checksums of the old one.
    const table = Uint32Array.from(words)
    table[0] = words[3]!
    table[3] = words[0]!
    writeFileSync(damaged, Buffer.concat([second!, first!, ...rest, encodeSeekTable(table)]))
    await expect(unpack()).rejects.toMatchObject(isCorrupted)
  })

  test("frames out of order with a table to match are what the checksum of the whole is for", async () => {
    const { words, frames } = parts(readFileSync(whole))
    const [first, second, ...rest] = frames
    const table = Uint32Array.of(...words.subarray(3, 6), ...words.subarray(0, 3), ...words.subarray(6))
    writeFileSync(damaged, Buffer.concat([second!, first!, ...rest, encodeSeekTable(table)]))
    const facts = { path: damaged, uncompressedBytes: image.length, threads: 2, signal }
    await verifyFile(facts)
    await expect(verifyFile({ ...facts, sha256 })).rejects.toMatchObject(isCorrupted)
  })

  test("a table that lies about a frame's content is corrupted", async () => {
    const { words, frames } = parts(readFileSync(whole))
    for (const lie of [frame - 1, frame + 1, 8 * 2 ** 20]) {
      const table = Uint32Array.from(words)
      table[1] = lie
      writeFileSync(damaged, Buffer.concat([...frames, encodeSeekTable(table)]))
      await expect(unpack()).rejects.toMatchObject(isCorrupted)
    }
  })

  test("verification compares the whole content and its size", async () => {
    const facts = { path: whole, sha256, uncompressedBytes: image.length, threads: 2, signal }
    await verifyFile(facts)
    await expect(verifyFile({ ...facts, sha256: "0".repeat(64) })).rejects.toMatchObject(isCorrupted)
    await expect(verifyFile({ ...facts, uncompressedBytes: 5 })).rejects.toMatchObject(isCorrupted)
  })

  test("nothing of a bad frame is yielded", async () => {
    const bytes = readFileSync(whole)
    bytes[bytes.length >> 2]! ^= 0xff
    writeFileSync(damaged, bytes)
    await expect(
      (async () => {
        let seen = 0
        for await (const piece of decompressFrames({ path: damaged, threads: 1, signal })) {
          expect(image.subarray(seen, seen + piece.length).equals(piece)).toBe(true)
          seen += piece.length
        }
      })(),
    ).rejects.toMatchObject(isCorrupted)
  })
})

test("files that are no compressed files are corrupted, missing ones not found", async () => {
  for (const content of ["", "x", "no table here, only text that goes on for a while"]) {
    writeFileSync(damaged, content)
    await expect(openSeekable(damaged)).rejects.toMatchObject(isCorrupted)
  }
  const missing = join(folder, "missing")
  const options = { source: missing, destination: unpacked, threads: 1, signal }
  await expect(openSeekable(missing)).rejects.toMatchObject({ code: "not_found" })
  await expect(compressFile({ ...options, algorithm: "zstd", level: 1 })).rejects.toMatchObject({
    code: "not_found",
  })
  await expect(sha256File(missing, { signal })).rejects.toMatchObject({ code: "not_found" })
  await expect(sha256File(folder, { signal })).rejects.toMatchObject({ code: "corrupted" })
  expect(existsSync(unpacked)).toBe(false)
})

test("a destination that exists is refused and left alone", async () => {
  const taken = join(folder, "taken")
  writeFileSync(taken, "mine")
  const options = { source, destination: taken, threads: 1, signal }
  await expect(compressFile({ ...options, algorithm: "lz4", level: 0 })).rejects.toMatchObject({
    code: "conflict",
  })
  expect(readFileSync(taken, "utf8")).toBe("mine")
})

test("an abort on the way removes the destination and throws the signal's reason", async () => {
  const large = join(folder, "large")
  // Noise of five bits a byte: level 19 takes seconds, so that the first report of progress comes in the
  // middle.
  writeFileSync(
    large,
    randomBytes(24 * 2 ** 20).map((byte) => byte & 0x1f),
  )
  const destination = join(folder, "aborted")
  const abort = new AbortController()
  const reason = new Error("enough")
  await expect(
    compressFile({
      source: large,
      destination,
      algorithm: "zstd",
      level: 19,
      threads: 2,
      signal: abort.signal,
      onProgress: () => abort.abort(reason),
    }),
  ).rejects.toBe(reason)
  expect(existsSync(destination)).toBe(false)
  await expect(unpack(abort.signal)).rejects.toBe(reason)
})

function unpack(by: AbortSignal = signal): Promise<unknown> {
  rmSync(unpacked, { force: true })
  return decompressFile({ source: damaged, destination: unpacked, threads: 2, signal: by })
}

async function outcome(): Promise<string> {
  try {
    await unpack()
    return readFileSync(unpacked).equals(image) ? "the right bytes" : "wrong bytes"
  } catch (thrown) {
    return `${toStillframeError(thrown).code}, ${existsSync(unpacked) ? "a rest left" : "nothing left"}`
  }
}

/** The words of the seek table and the bytes of each frame. */
function parts(bytes: Buffer): { words: Uint32Array; frames: Buffer[] } {
  const frameCount = bytes.readUInt32LE(bytes.length - 9)
  const table = bytes.length - 9 - 12 * frameCount
  const words = Uint32Array.from({ length: 3 * frameCount }, (_, word) =>
    bytes.readUInt32LE(table + 4 * word),
  )
  let at = 0
  const frames = Array.from({ length: frameCount }, (_, index) =>
    bytes.subarray(at, (at += words[3 * index] ?? 0)),
  )
  return { words, frames }
}
