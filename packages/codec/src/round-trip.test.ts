import { execFileSync, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import fc from "fast-check"
import { afterAll, expect, test } from "vitest"
import { compressFile } from "./compress.ts"
import { decompressFile, decompressFrames } from "./decompress.ts"
import { chooseCodec, codecIds, loads } from "./frames/codecs.ts"
import { describeEachCodec } from "./frames/each-codec.ts"
import { openSeekable } from "./frames/seekable.ts"
import { sha256File } from "./hash.ts"
import { verifyFile } from "./verify.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const frame = 256 * 1024
const settings = [
  ["zstd", 1],
  ["zstd", 9],
  ["lz4", 0],
  ["lz4", 9],
] as const
const sizes = [0, 1, frame, frame + 1, 11 * frame + 4097]

for (const [algorithm, level] of settings) {
  test(`${algorithm} ${level}: files of every size come back, whole, verified and streamed`, async () => {
    for (const size of sizes) {
      const image = memoryImage(size)
      const [source, packed, unpacked] = paths("image", "packed", "unpacked")
      writeFileSync(source, image)

      const sizesOut = await compressFile({
        source,
        destination: packed,
        algorithm,
        level,
        threads: 2,
        signal,
      })
      expect(sizesOut).toEqual({ uncompressedBytes: size, compressedBytes: statSync(packed).size })
      const sha256 = createHash("sha256").update(image).digest("hex")
      expect(await sha256File(source, { signal })).toEqual({ sha256, bytes: size })
      await verifyFile({ path: packed, sha256, uncompressedBytes: size, threads: 2, signal })
      await decompressFile({ source: packed, destination: unpacked, threads: 2, signal })
      expect(readFileSync(unpacked).equals(image)).toBe(true)
      expect((await streamed(packed)).equals(image)).toBe(true)
    }
  })
}

describeEachCodec((algorithm) => {
  const tool = spawnSync(algorithm, ["--version"])
  const reason = tool.status === 0 ? "" : ` (skipped: no ${algorithm} command on PATH)`

  test.skipIf(reason)(`the ${algorithm} command line tool reads our files${reason}`, async () => {
    for (const size of sizes) {
      const image = memoryImage(size)
      const packed = await packedFile(image, algorithm)
      const content = execFileSync(algorithm, ["-dc", packed], { maxBuffer: 2 * image.length + frame })
      expect(content.equals(image)).toBe(true)
    }
  })
})

describeEachCodec((algorithm, codec) => {
  test("a read at any offset equals the source, whatever else is read at the time", async () => {
    const image = memoryImage(5 * frame + 123)
    await using file = await openSeekable(await packedFile(image, algorithm))
    expect(file).toMatchObject({ uncompressedBytes: image.length, frameCount: 6 })
    const range = fc.tuple(fc.nat(image.length + 10), fc.oneof(fc.nat(2 * frame), fc.nat(100)))
    await fc.assert(
      fc.asyncProperty(fc.array(range, { minLength: 1, maxLength: 5 }), async (ranges) => {
        const contents = await Promise.all(ranges.map(([offset, length]) => file.read(offset, length)))
        return ranges.every(([offset, length], index) =>
          image.subarray(offset, offset + length).equals(contents[index]!),
        )
      }),
      { numRuns: 50 },
    )
  })

  test("a read that begins or ends at the edge of a frame or of the file equals the source", async () => {
    const image = memoryImage(2 * frame + 1)
    await using file = await openSeekable(await packedFile(image, algorithm))
    const edges = [0, frame, 2 * frame, image.length].flatMap((edge) => [edge - 1, edge, edge + 1])
    for (const offset of edges.filter((edge) => edge >= 0)) {
      for (const end of edges.filter((edge) => edge >= offset)) {
        const content = await file.read(offset, end - offset)
        expect(image.subarray(offset, end).equals(content), `${offset} to ${end}`).toBe(true)
      }
    }
    for (const [offset, length] of [
      [-1, 1],
      [0, -1],
      [0.5, 1],
      [0, Number.NaN],
      [2 ** 53, 1],
    ] as const) {
      await expect(file.read(offset, length)).rejects.toMatchObject({ code: "invalid_request" })
    }
  })

  test("what one codec wrote, all others of the algorithm read", async () => {
    const image = memoryImage(3 * frame + 5)
    const packed = await packedFile(image, algorithm)
    for (const other of codecIds[algorithm].filter(loads)) {
      chooseCodec(algorithm, other)
      const content = await streamed(packed)
      expect(content.equals(image), `read by ${other}`).toBe(true)
    }
    chooseCodec(algorithm, codec)
  })
})

test("zeros cost next to nothing and come back as holes", async () => {
  const [source, unpacked] = paths("sparse", "sparse-back")
  writeFileSync(source, "start")
  truncateSync(source, 64 * 2 ** 20)
  const packed = join(folder, "sparse-packed")

  const { compressedBytes } = await compressFile({
    source,
    destination: packed,
    algorithm: "zstd",
    level: 1,
    threads: 2,
    signal,
  })
  await decompressFile({ source: packed, destination: unpacked, threads: 2, signal })

  expect(compressedBytes).toBeLessThan(16 * 1024)
  expect(readFileSync(unpacked).equals(readFileSync(source))).toBe(true)
  expect(statSync(unpacked).blocks * 512).toBeLessThanOrEqual(2 * frame)
})

test("progress ends at the whole", async () => {
  const [source, destination] = paths("progress", "progress-packed")
  writeFileSync(source, memoryImage(3 * frame + 5))
  const reports: [number, number][] = []
  const onProgress = (done: number, total: number): number => reports.push([done, total])
  await compressFile({ source, destination, algorithm: "zstd", level: 1, threads: 1, signal, onProgress })
  expect(reports.at(-1)).toEqual([3 * frame + 5, 3 * frame + 5])
})

let packedCount = 0

async function packedFile(image: Buffer, algorithm: "zstd" | "lz4"): Promise<string> {
  const name = `packed-file-${packedCount++}`
  const [source, destination] = paths(`${name}-source`, name)
  writeFileSync(source, image)
  await compressFile({ source, destination, algorithm, level: 1, threads: 2, signal })
  return destination
}

/** Paths of files that are not there yet. */
function paths<const Names extends string[]>(...names: Names): { [Key in keyof Names]: string } {
  for (const name of names) rmSync(join(folder, name), { force: true })
  return names.map((name) => join(folder, name)) as { [Key in keyof Names]: string }
}

/** Zeros, text and noise by turns, each third of a frame long, and every fourth frame all zeros. */
function memoryImage(size: number): Buffer {
  const image = Buffer.alloc(size)
  const piece = Math.floor(frame / 3)
  let noise = 42
  for (let at = 0; at < size; at++) {
    if (Math.floor(at / frame) % 4 === 2) continue
    const kind = Math.floor(at / piece) % 3
    noise = (Math.imul(noise, 1_664_525) + 1_013_904_223) | 0
    if (kind === 0) image[at] = noise >>> 24
    if (kind === 1) image[at] = 97 + (at % 23) + (noise >>> 31)
  }
  return image
}

async function streamed(path: string): Promise<Buffer> {
  const pieces = []
  for await (const piece of decompressFrames({ path, threads: 2, signal })) pieces.push(piece)
  return Buffer.concat(pieces)
}
