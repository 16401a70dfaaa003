import { spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { closeSync, fsyncSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, expect, test } from "vitest"
import { compressFile } from "./compress.ts"
import { openDirect } from "./direct.ts"
import { sha256File } from "./hash.ts"
import { verifyFile } from "./verify.ts"

const folder = mkdtempSync(join(tmpdir(), "codec-device-"))
afterAll(() => rmSync(folder, { recursive: true }))
const { signal } = new AbortController()
const bytes = 8 * 2 ** 20 + 1234
const source = join(folder, "source")
writeFileSync(source, randomBytes(bytes))
sync(source)

const reason = (await readsPastTheCache()) ? "" : " (skipped: the temporary folder has no O_DIRECT)"

test.skipIf(reason)(`a hash from the device does not believe the page cache${reason}`, async () => {
  // From the cache: it was just written.
  const { sha256 } = await sha256File(source, { signal })

  const before = bytesFromDevice()
  expect(await sha256File(source, { signal, fromDevice: true })).toEqual({ sha256, bytes })
  expect(bytesFromDevice() - before).toBeGreaterThanOrEqual(bytes)
})

test.skipIf(reason)(`a verification reads frames from the device${reason}`, async () => {
  const packed = join(folder, "packed")
  const options = { algorithm: "zstd", level: 1, threads: 2, signal } as const
  const { compressedBytes } = await compressFile({ source, destination: packed, ...options })

  const before = bytesFromDevice()
  expect((await verifyFile({ path: packed, threads: 2, signal })).fromDevice).toBe(true)
  expect(bytesFromDevice() - before).toBeGreaterThanOrEqual(compressedBytes)
})

const strace = spawnSync("strace", ["true"]).status === 0 ? reason : " (skipped: strace does not work here)"

test.skipIf(strace)(`where direct reads fail the cache is read${strace}`, () => {
  const url = new URL("hash.ts", import.meta.url).href
  const call = `sha256File(${JSON.stringify(source)}, { signal: new AbortController().signal, fromDevice: true })`
  const code = `const { sha256File } = await import("${url}"); console.log((await ${call}).bytes)`
  const failing = ["-P", source, "-e", "trace=pread64", "-e", "inject=pread64:error=EINVAL:when=1"]
  const node = [process.execPath, "--input-type=module", "-e", code]

  const { stdout } = spawnSync(
    "env",
    ["UV_THREADPOOL_SIZE=1", "strace", "-f", "-qq", "-o", "/dev/null", ...failing, ...node],
    { encoding: "utf8" },
  )

  expect(stdout).toBe(`${bytes}\n`)
})

async function readsPastTheCache(): Promise<boolean> {
  await using direct = await openDirect(source)
  return direct !== undefined && process.platform === "linux"
}

function bytesFromDevice(): number {
  return Number(/^read_bytes: (\d+)$/m.exec(readFileSync("/proc/self/io", "utf8"))?.[1])
}

function sync(path: string): void {
  const file = openSync(path, "r+")
  fsyncSync(file)
  closeSync(file)
}
