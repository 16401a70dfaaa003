import { spawn, spawnSync, type SpawnSyncReturns } from "node:child_process"
import { randomBytes } from "node:crypto"
import { once } from "node:events"
import { mkdtemp, open, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { zstdCompressSync } from "node:zlib"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { compressing, type CompressOptions, decompressing, verifying } from "./commands.ts"

const main = join(import.meta.dirname, "../main.ts")
const mib = 1024 ** 2
// Neither all noise nor all zeros, and no whole number of frames.
const content = Buffer.concat([randomBytes(mib), Buffer.alloc(mib), Buffer.from("snapshot ".repeat(40_000))])

let dir: string
let original: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-files-"))
  original = join(dir, "memory")
  await writeFile(original, content)
})
afterEach(() => rm(dir, { recursive: true }))

function stillframe(...args: string[]): SpawnSyncReturns<Buffer> {
  return spawnSync(process.execPath, [main, ...args], { cwd: dir, maxBuffer: 64 * mib })
}

// The verbs in this process; the command line around them is tested where it matters.
const work = { signal: new AbortController().signal, onProgress: () => undefined }
const at = (name: string): string => (name === "" ? "" : join(dir, name))
const compress = (
  name: string,
  output: string,
  options: Partial<CompressOptions> = {},
): Promise<string | undefined> =>
  compressing(at(name), { algorithm: "zstd", ...options, output: at(output) }, work)
const decompress = (name: string, output: string, force = false): Promise<string | undefined> =>
  decompressing(at(name), { output: at(output), force }, work)
const verify = (name: string): Promise<string | undefined> => verifying(at(name), undefined, work)

test.each([
  ["zstd", "1"],
  ["zstd", "6"],
  ["lz4", "0"],
])("%s at level %s: there and back", async (algorithm, level) => {
  await compress("memory", "packed", { algorithm, level })
  await decompress("packed", "back")

  expect((await readFile(join(dir, "back"))).equals(content)).toBe(true)
})

for (const tool of ["zstd", "lz4"]) {
  const missing = spawnSync(tool, ["--version"]).error === undefined ? "" : ` (skipped: no ${tool} on PATH)`
  test.skipIf(missing !== "")(`${tool} -d reads what was compressed for it${missing}`, async () => {
    await compress("memory", "packed", { algorithm: tool })

    const { stdout } = spawnSync(tool, ["-dc", "packed"], { cwd: dir, maxBuffer: 64 * mib })

    expect(stdout.equals(content)).toBe(true)
  })

  test.skipIf(missing !== "")(`decompress reads what ${tool} made${missing}`, async () => {
    spawnSync(tool, ["-q", "-z", "memory", ...(tool === "zstd" ? ["-o"] : []), "theirs"], { cwd: dir })

    await decompress("theirs", "back")

    expect((await readFile(join(dir, "back"))).equals(content)).toBe(true)
  })
}

test("decompressed zeros are holes", async () => {
  await compress("memory", "packed")
  await decompress("packed", "back")

  const { blocks, size } = await stat(join(dir, "back"))
  expect(size).toBe(content.length)
  expect(blocks * 512).toBeLessThan(content.length - mib / 2)
})

test("cat writes all of it, or the part that is asked for", async () => {
  await compress("memory", "packed")
  const part = (...range: string[]): Buffer => stillframe("cat", ...range, "packed").stdout

  expect(part().equals(content)).toBe(true)
  const [offset, length] = [mib - 100, 1_000]
  const asked = part("--offset", String(offset), "--length", String(length))
  expect(asked.equals(content.subarray(offset, offset + length))).toBe(true)
  expect(part("--offset", String(content.length - 5)).equals(content.subarray(-5))).toBe(true)
  expect(part("--offset", String(content.length + 5)).length).toBe(0)
  expect(part("--length", "0").length).toBe(0)
})

test("cat ends without a word when its reader has seen enough", async () => {
  await compress("memory", "packed")

  const pipe = `"${process.execPath}" "${main}" cat packed | head -c 10 | wc -c; echo "\${PIPESTATUS[0]}"`
  const { stdout, stderr } = spawnSync("bash", ["-c", pipe], { cwd: dir, encoding: "utf8" })

  expect(stdout.split(/\s+/).filter(Boolean)).toEqual(["10", "0"])
  expect(stderr).toBe("")
})

test("verify says what is in a good file, and refuses a damaged one with status 1", async () => {
  await compress("memory", "packed")

  expect(await verify("packed")).toContain(`good zstd, ${content.length} bytes`)

  await using file = await open(join(dir, "packed"), "r+")
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, 5_000)
  await file.write(Buffer.from([(buffer[0] ?? 0) ^ 1]), 0, 1, 5_000)
  const damaged = stillframe("verify", "packed")
  expect(damaged.status).toBe(1)
  expect(damaged.stderr.toString()).toMatch(/^[^\n]+ frame 0 [^\n]+\n$/)
})

test("verify names no algorithm for a file without content", async () => {
  await writeFile(join(dir, "empty"), "")
  await compress("empty", "empty.lz4", { algorithm: "lz4" })

  expect(await verify("empty.lz4")).toContain("empty.lz4: good, without content, 0 bytes")
})

test("verify and cat read what another program wrote, and say that frames may be missing", async () => {
  await writeFile(join(dir, "theirs"), zstdCompressSync(content))

  expect(await verify("theirs")).toMatch(new RegExp(`good zstd, ${content.length} bytes .*; no seek table`))
  expect(stillframe("cat", "theirs").stdout.equals(content)).toBe(true)
  expect(stillframe("cat", "--offset", String(mib), "--length", "9", "theirs").stdout).toEqual(
    Buffer.alloc(9),
  )
})

test("an output that exists is kept unless --force says otherwise, and then until the new one is whole", async () => {
  await writeFile(join(dir, "taken"), "mine")

  await expect(compress("memory", "taken")).rejects.toThrow("taken exists already")
  await expect(decompress("memory", "taken", true)).rejects.toMatchObject({ code: "not_supported" })
  expect(await readFile(join(dir, "taken"), "utf8")).toBe("mine")

  await compress("memory", "taken", { force: true })
  expect(await verify("taken")).toContain(`good zstd, ${content.length} bytes`)
})

test.each([
  [() => compress("absent", "out"), "absent"],
  [() => compress(".", "out"), "is a directory"],
  [() => compress("memory", "out", { algorithm: "gzip" }), "use zstd or lz4"],
  [() => compress("memory", "out", { level: "20" }), "between 1 and 19"],
  [() => compress("memory", "out", { level: "fast" }), "--level fast must be a whole number"],
  [() => compress("memory", "no/such/folder"), "no/such"],
  [() => decompress("memory", "out"), "neither a zstd nor an LZ4 frame"],
  [() => verify("memory"), "neither a zstd nor an LZ4 frame"],
])("%s fails in one sentence that says why, and leaves nothing", async (verb, reason) => {
  const message: unknown = await verb().catch((error: Error) => error.message)

  expect(message).toContain(reason)
  expect(message).not.toContain("\n")
  expect(await readdir(dir)).toEqual(["memory"])
})

test.each([
  [["cat", "--offset", "-1", "memory"], "--offset -1"],
  [["compress", "memory", "-o", "one", "-o", "two"], "it is given twice"],
])("%j fails with one line and status 1, and leaves nothing", async (args, reason) => {
  const { status, stderr } = stillframe(...args)

  expect(status).toBe(1)
  expect(stderr.toString()).toContain(reason)
  expect(stderr.toString().trim().split("\n")).toHaveLength(1)
  expect(await readdir(dir)).toEqual(["memory"])
})

test("Ctrl-C leaves nothing", async () => {
  await writeFile(original, randomBytes(64 * mib))
  const child = spawn(process.execPath, [main, "compress", "--level", "19", "memory", "-o", "out"], {
    cwd: dir,
    stdio: "ignore",
  })
  const ended = once(child, "close")
  await vi.waitUntil(async () => (await readdir(dir)).length > 1, { timeout: 20_000 })

  child.kill("SIGINT")

  expect((await ended)[0]).toBe(130)
  expect(await readdir(dir)).toEqual(["memory"])
})
