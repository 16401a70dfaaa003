import { execFileSync, spawnSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Algorithm } from "@stillframe/domain/compression"
import { afterAll, describe, expect, test } from "vitest"
import { compressFile } from "../compress.ts"
import { decompressFile } from "../decompress.ts"
import { decompressAny } from "../frames/any-file.ts"
import { openSeekable } from "../frames/seekable.ts"
import { liblz4FrameStream } from "../lz4/codec.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-foreign-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const source = join(folder, "source")
const packed = join(folder, "packed")
const unpacked = join(folder, "unpacked")
const frame = 256 * 1024
const image = Buffer.alloc(11 * frame + 4097, "some text that repeats, and numbers: 0123456789 ")
image.fill(0, 3 * frame, 9 * frame)
for (let at = 0, noise = 42; at < frame; at++)
  image[at] = (noise = Math.imul(noise, 1_664_525) + 1_013_904_223) >>> 24
const skippable = Buffer.from([0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0, 1, 2, 3, 4, 5])
const variants = {
  zstd: [[], ["--no-check"], ["-19", "--long=24"], ["--ultra", "-20"], ["--no-content-size"]],
  lz4: [["-BI"], ["-BD"], ["-B4", "-BD", "-9"], ["--no-frame-crc"], ["--content-size"], ["-BX"]],
}

for (const algorithm of ["zstd", "lz4"] as const) {
  const tool = spawnSync(algorithm, ["--version"]).status === 0
  const library = algorithm === "zstd" || liblz4FrameStream() !== undefined
  const reason = tool ? (library ? "" : " (skipped: no liblz4.so.1)") : ` (skipped: no ${algorithm} on PATH)`

  describe.skipIf(reason)(`${algorithm}, files of the command line tool${reason}`, () => {
    test.each(variants[algorithm].map((flags) => [flags.join(" "), flags] as const))(
      "written with %j come back",
      async (_name, flags) => {
        for (const size of [0, 1, frame, frame + 1, image.length]) {
          const content = image.subarray(0, size)
          writeFileSync(packed, byTool(algorithm, flags, content))
          expect((await unpack()).equals(content)).toBe(true)
        }
      },
    )

    test("one after the other and between skippable frames come back, zeros as holes", async () => {
      const file = byTool(algorithm, [], image)
      writeFileSync(
        packed,
        Buffer.concat([
          skippable,
          file,
          skippable,
          skippable,
          byTool(algorithm, [], Buffer.from("end")),
          file,
        ]),
      )
      const content = Buffer.concat([image, Buffer.from("end"), image])
      expect((await unpack()).equals(content)).toBe(true)
      expect(statSync(unpacked).blocks * 512).toBeLessThan(content.length - 6 * frame)
    })

    test("cut off or followed by something else are corrupted and leave nothing", async () => {
      const file = byTool(algorithm, [], image)
      const cuts = [1, 3, 4, 5, 6, 9, 1000, file.length >> 1, file.length - 4, file.length - 1]
      const bad = cuts.map((length) => file.subarray(0, length))
      bad.push(
        Buffer.alloc(0),
        Buffer.concat([file, Buffer.from("x")]),
        Buffer.concat([file, Buffer.from("what else")]),
      )
      bad.push(Buffer.concat([file, skippable.subarray(0, 10)]), Buffer.concat([file, file.subarray(0, 100)]))
      for (const bytes of bad) {
        writeFileSync(packed, bytes)
        await expect(unpack(), `${bytes.length} bytes`).rejects.toMatchObject({ code: "corrupted" })
        expect(existsSync(unpacked)).toBe(false)
      }
    })

    test("cannot be read at an offset, and are damaged where a seek table is expected", async () => {
      writeFileSync(packed, byTool(algorithm, [], image))
      const refusal = { code: "corrupted", message: expect.stringContaining("decompress it first") }
      await expect(openSeekable(packed)).rejects.toMatchObject(refusal)
      await expect(unpack(decompressFile)).rejects.toMatchObject(refusal)
    })

    test("ours pass the tool's test, and come back the same way", async () => {
      writeFileSync(source, image)
      rmSync(packed, { force: true })
      await compressFile({ source, destination: packed, algorithm, level: 1, threads: 2, signal })
      execFileSync(algorithm, ["-t", packed], { stdio: "pipe" })
      expect((await unpack()).equals(image)).toBe(true)
      const bytes = readFileSync(packed)
      const tableBytes = 8 + 12 * Math.ceil(image.length / frame) + 9
      writeFileSync(packed, bytes.subarray(0, -tableBytes))
      expect((await unpack()).equals(image)).toBe(true)
    })

    test("ours one after the other come back, and damage in the first is noticed", async () => {
      writeFileSync(source, image)
      rmSync(packed, { force: true })
      await compressFile({ source, destination: packed, algorithm, level: 1, threads: 2, signal })
      const bytes = readFileSync(packed)
      writeFileSync(packed, Buffer.concat([bytes, bytes]))
      expect((await unpack()).equals(Buffer.concat([image, image]))).toBe(true)
      bytes[frame >> 1]! ^= 1
      writeFileSync(packed, Buffer.concat([bytes, bytes]))
      await expect(unpack()).rejects.toMatchObject({ code: "corrupted" })
    })
  })
}

const noZstd = spawnSync("zstd", ["--version"]).status === 0 ? "" : " (skipped: no zstd on PATH)"

describe.skipIf(noZstd !== "")(`zstd alone${noZstd}`, () => {
  test("ours are listed with their frames, the table among them", async () => {
    writeFileSync(source, image)
    rmSync(packed, { force: true })
    await compressFile({ source, destination: packed, algorithm: "zstd", level: 1, threads: 2, signal })
    expect(execFileSync("zstd", ["-l", packed], { encoding: "utf8" })).toMatch(/^ +13 +1 .*XXH64/m)
  })

  test("with a window of 256 MiB are refused with the way out", async () => {
    writeFileSync(packed, byTool("zstd", ["--long=28"], image))
    await expect(unpack()).rejects.toMatchObject({
      code: "not_supported",
      message: expect.stringContaining("zstd -d --long=31"),
    })
  })
})

test("LZ4's legacy format is refused with the way out", async () => {
  writeFileSync(packed, Buffer.from([0x02, 0x21, 0x4c, 0x18, 1, 0, 0, 0, 0]))
  await expect(unpack()).rejects.toMatchObject({
    code: "not_supported",
    message: expect.stringContaining("lz4 command"),
  })
})

async function unpack(decompress: typeof decompressFile = decompressAny): Promise<Buffer> {
  rmSync(unpacked, { force: true })
  await decompress({ source: packed, destination: unpacked, threads: 2, signal })
  return readFileSync(unpacked)
}

function byTool(algorithm: Algorithm, flags: readonly string[], content: Uint8Array): Buffer {
  return execFileSync(algorithm, ["-c", ...flags], {
    input: content,
    maxBuffer: 2 * image.length,
    stdio: "pipe",
  })
}
