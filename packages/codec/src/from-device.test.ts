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
