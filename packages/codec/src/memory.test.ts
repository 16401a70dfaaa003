import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, test } from "vitest"
import { compressFile } from "./compress.ts"
import { seekableFile, zerosPart } from "./foreign/other-writers.ts"
import { footerBytes, seekTableBytes } from "./frames/seek-table.ts"
import { liblz4FrameStream } from "./lz4/codec.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-memory-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const mebibyte = 2 ** 20
const contentBytes = 512 * mebibyte
/** Far above Node, its threads and the table, and far below the content. */
const peakMax = 400 * mebibyte

/** Each call starts a process, which takes seconds on a busy machine. */
const timeoutMs = 120_000

const linux = process.platform === "linux" ? "" : " (skipped: not Linux)"
const reasons = { zstd: linux, lz4: linux || (liblz4FrameStream() ? "" : " (skipped: no liblz4.so.1)") }

for (const algorithm of ["zstd", "lz4"] as const) {
  test.skipIf(reasons[algorithm])(
    `${algorithm}: 512 MiB take the same few megabytes, with a seek table and without${reasons[algorithm]}`,
    async () => {
      const [source, packed, foreign] = ["source", "packed", "foreign"].map((name) =>
        join(folder, `${algorithm}-${name}`),
      ) as [string, string, string]
      writeFileSync(source, "start")
      truncateSync(source, contentBytes)
      await compressFile({ source, destination: foreign, algorithm, level: 1, threads: 2, signal })
      cutOffSeekTable(foreign)

      const threads = "threads: 2, signal: new AbortController().signal"
      const from = (name: string): string =>
        `source: ${JSON.stringify(name)}, destination: ${JSON.stringify(`${name}-out`)}`
      expect(
        peakOf(
          "compress",
          `m.compressFile({ source: ${JSON.stringify(source)}, destination: ${JSON.stringify(packed)}, algorithm: "${algorithm}", level: 1, ${threads} })`,
        ),
      ).toBeLessThan(peakMax)
      expect(peakOf("verify", `m.verifyFile({ path: ${JSON.stringify(packed)}, ${threads} })`)).toBeLessThan(
        peakMax,
      )
      expect(peakOf("decompress", `m.decompressFile({ ${from(packed)}, ${threads} })`)).toBeLessThan(peakMax)
      expect(peakOf("frames/any-file", `m.decompressAny({ ${from(foreign)}, ${threads} })`)).toBeLessThan(
        peakMax,
      )
    },
    timeoutMs,
  )
}

test.skipIf(linux)(
  `one frame of 512 MiB takes no more memory${linux}`,
  () => {
    const [path, unpacked] = [join(folder, "one-frame"), join(folder, "one-frame-out")]
    writeFileSync(path, seekableFile([zerosPart(contentBytes / 2 ** 17)]))
    const work = "{ threads: 2, signal: new AbortController().signal }"
    expect(peakOf("frames/any-file", `m.verifyAny(${JSON.stringify(path)}, ${work})`)).toBeLessThan(peakMax)
    const files = `source: ${JSON.stringify(path)}, destination: ${JSON.stringify(unpacked)}`
    expect(peakOf("frames/any-file", `m.decompressAny({ ${files}, ...${work} })`)).toBeLessThan(peakMax)
    const read = `(async () => { for await (const _ of m.anyContent(${JSON.stringify(path)}, ${work})); })()`
    expect(peakOf("frames/any-content", read)).toBeLessThan(peakMax)
  },
  timeoutMs,
)

/**
 * The most memory in bytes that a process held which did nothing else than this call on a module of the
 * package.
 */
function peakOf(module: string, call: string): number {
  const url = new URL(`${module}.ts`, import.meta.url).href
  // Not resourceUsage().maxRSS: Linux starts that at what the parent had.
  const code = `import { readFileSync } from "node:fs"
    const m = await import("${url}"); await ${call}
    console.log(/VmHWM:\\s*(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1])`
  const output = execFileSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8" })
  return Number(output) * 1024
}

function cutOffSeekTable(path: string): void {
  const bytes = readFileSync(path)
  truncateSync(path, bytes.length - seekTableBytes(bytes.subarray(-footerBytes), bytes.length))
}
