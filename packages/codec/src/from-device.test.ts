import { spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import {
  closeSync,
  fsyncSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { contentHash, sparseBytesMin } from "@stillframe/storage/content-hash"
import { afterAll, expect, test } from "vitest"
import { compressFile } from "./compress.ts"
import { openDirect } from "./frames/direct.ts"
import { diskHash, sha256File } from "./hash.ts"
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

test.skipIf(reason)("a disk of 1 TiB has the hash of its content, and only that is read", async () => {
  const disk = join(folder, "disk")
  const data = Buffer.alloc(2 ** 20, 7)
  const [size, position] = [2 ** 40, 700 * 2 ** 30]
  const file = openSync(disk, "w")
  writeSync(file, data, 0, data.length, position)
  closeSync(file)
  truncateSync(disk, size)
  sync(disk)
  const hash = contentHash(size)
  hash.update(data, position)
  const found = { sha256: hash.digest(size), bytes: size }

  const before = bytesFromDevice()
  expect(await diskHash(disk, { signal, fromDevice: true })).toEqual(found)
  expect(await diskHash(disk, { signal })).toEqual(found)
  expect(bytesFromDevice() - before).toBeLessThan(32 * data.length)
})

test("a disk that an earlier version hashed is known by that hash", async () => {
  const disk = join(folder, "earlier")
  writeFileSync(disk, "")
  truncateSync(disk, sparseBytesMin)
  // `truncate -s 4G earlier && sha256sum earlier`
  const expected = "8479e43911dc45e89f934fe48d01297e16f51d17aa561d4d1c216b1ae0fcddca"

  expect((await diskHash(disk, { signal, expected })).sha256).toBe(expected)
}, 60_000)

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
