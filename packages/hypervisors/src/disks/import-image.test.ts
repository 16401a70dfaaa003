import { execFile } from "node:child_process"
import { appendFileSync, chmodSync, linkSync, utimesSync, writeFileSync } from "node:fs"
import {
  chmod,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterEach, beforeEach, describe, expect, test } from "vitest"
import { openHostFileAt } from "../files/host-file.ts"
import { openHostFile } from "./host-paths.ts"
import { hostImages, removeUnusedImages, storedNames, type ImageStore } from "./image-store.ts"
import { importBytes, importImage } from "./import-image.ts"

const run = promisify(execFile)
const mib = 1024 ** 2
const never = new AbortController().signal
/** Changed long ago, unlike all that a test can make. */
const oldFile = join(import.meta.dirname, "../../package.json")

let root: string
let store: ImageStore
let callers: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "stillframe-import-"))
  for (const name of ["hp", "data", "one", "two"]) await mkdir(join(root, name))
  store = hostImages(join(root, "data"))
  callers = join(root, "hp/gold.raw")
  await writeFile(callers, Buffer.alloc(3 * mib, 7), { mode: 0o600 })
})
afterEach(() => rm(root, { recursive: true }))

/** By this process: holes that are read count as well. */
async function bytesRead(): Promise<number> {
  return Number(/^rchar: (\d+)$/m.exec(await readFile("/proc/self/io", "utf8"))?.[1])
}

async function imported(path: string, vm: string, onBytes?: (bytes: number) => void): Promise<string> {
  await using file = await openHostFileAt(path)
  const to = join(root, vm, "disk0.base")
  await importImage(file, to, { store, signal: never, onBytes })
  return to
}

test("files of the same content become one image, read-only and our own, named by its SHA-256", async () => {
  const copy = join(root, "hp/copy.raw")
  await writeFile(copy, Buffer.alloc(3 * mib, 7))

  const [one, two] = [await imported(callers, "one"), await imported(copy, "two")]

  const [first, second] = await Promise.all([stat(one), stat(two)])
  expect(second.ino).toBe(first.ino)
  expect(first).toMatchObject({ nlink: 3, uid: process.getuid?.(), mode: 0o100444 })
  expect((await stat(callers)).nlink).toBe(1)
  const { stdout } = await run("sha256sum", [callers])
  expect(await readdir(store.dir)).toEqual([stdout.split(" ")[0]])
})

describe("an image holds what was imported", () => {
  test.each([
    ["touched", () => utimes(callers, 1, 1)],
    ["kept from others", () => chmod(callers, 0o000)],
    ["edited in place", () => writeFile(callers, Buffer.alloc(3 * mib, 8))],
    ["truncated", () => truncate(callers, 1)],
    ["deleted", () => rm(callers)],
    ["renamed", () => rename(callers, `${callers}.old`)],
  ])("after the caller's file was %s", async (_, change) => {
    const image = await imported(callers, "one")

    await change()

    expect((await readFile(image)).equals(Buffer.alloc(3 * mib, 7))).toBe(true)
  })
})

test("a file that was imported before and is unchanged is not read again, nor asked room for", async () => {
  const read: number[] = []
  const first = await imported(oldFile, "one", (bytes) => void read.push(bytes))
  expect(read).toHaveLength(1)

  const second = await imported(oldFile, "two", (bytes) => void read.push(bytes))

  expect(read).toHaveLength(1)
  expect((await stat(second)).ino).toBe((await stat(first)).ino)
  await using file = await openHostFileAt(oldFile)
  expect(await importBytes(file, store)).toBe(0)
})

test("a file that was changed just now is read again: its next change might show no other time", async () => {
  await imported(callers, "one")
  const read: number[] = []

  await imported(callers, "two", (bytes) => void read.push(bytes))

  expect(read.at(-1)).toBe(3 * mib)
})

test("a file that is changed while it is imported is found out, and nothing is left", async () => {
  const attempt = imported(callers, "one", () => appendFileSync(callers, "more"))

  await expect(attempt).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining(`${callers} was changed while it was imported`),
  })
  expect([await readdir(join(root, "one")), await storedNames(store.dir)]).toEqual([[], []])
})

test("a file that gets another link and mode while it is imported is the same all along", async () => {
  let changed = false
  const image = await imported(callers, "one", () => {
    if (changed) return
    changed = true
    linkSync(callers, `${callers}.link`)
    chmodSync(callers, 0o600)
  })

  expect(await readFile(image)).toEqual(await readFile(callers))
})

test("a file that is edited and set back in time while it is imported is found out", async () => {
  const { mtime } = await stat(callers)
  const attempt = imported(callers, "one", (bytes) => {
    if (bytes < 3 * mib) return
    writeFileSync(callers, Buffer.alloc(3 * mib, 9))
    utimesSync(callers, mtime, mtime)
  })

  await expect(attempt).rejects.toMatchObject({ code: "conflict" })
})

test("an import that is cancelled ends within a piece, and nothing is left", async () => {
  const cancelled = new AbortController()
  await using file = await openHostFileAt(callers)
  const read: number[] = []
  const onBytes = (bytes: number): void => {
    read.push(bytes)
    cancelled.abort()
  }

  const attempt = importImage(file, join(root, "one/disk0.base"), {
    store,
    signal: cancelled.signal,
    onBytes,
  })

  await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
  expect(read).toEqual([mib])
  expect([await readdir(join(root, "one")), await storedNames(store.dir)]).toEqual([[], []])
})

test("what a killed import left is in nobody's way", async () => {
  await writeFile(join(root, "one/disk0.base.part"), "half")

  const image = await imported(callers, "one")

  expect((await stat(image)).size).toBe(3 * mib)
  expect(await readdir(join(root, "one"))).toEqual(["disk0.base"])
})

test("holes stay holes, and content that is the same has the same hash however it is stored", async () => {
  const sparse = join(root, "hp/sparse.raw")
  await writeFile(sparse, "start")
  await truncate(sparse, 64 * mib)
  await run("cp", ["--sparse=never", sparse, callers])

  const [one, two] = [await imported(sparse, "one"), await imported(callers, "two")]

  expect((await stat(one)).ino).toBe((await stat(two)).ino)
  const { size, blocks } = await stat(one)
  expect([size, blocks * 512 <= mib / 8]).toEqual([64 * mib, true])
})

describe("an image of 1 TiB that is nearly all holes", () => {
  let sparse: string
  beforeEach(async () => {
    sparse = join(root, "hp/sparse.raw")
    await writeFile(sparse, "")
    await truncate(sparse, 2 ** 40)
    await using file = await open(sparse, "r+")
    await file.write(Buffer.alloc(mib, 7), 0, mib, 700 * 2 ** 30 + 5)
  })

  test("is read where it has data only, and stays as sparse", async () => {
    const before = await bytesRead()
    const image = await imported(sparse, "one")

    expect((await bytesRead()) - before).toBeLessThan(32 * mib)
    const { size, blocks } = await stat(image)
    expect([size, blocks * 512 <= 2 * mib]).toEqual([2 ** 40, true])
    await using file = await open(image)
    const { buffer } = await file.read(Buffer.alloc(mib + 2), 0, mib + 2, 700 * 2 ** 30 + 4)
    expect(buffer.equals(Buffer.concat([Buffer.alloc(1), Buffer.alloc(mib, 7), Buffer.alloc(1)]))).toBe(true)
  })

  test("is found out when it differs in one byte", async () => {
    const one = await imported(sparse, "one")
    await using file = await open(sparse, "r+")
    await file.write(Buffer.of(1), 0, 1, 2 ** 40 - 1)

    const two = await imported(sparse, "two")

    expect((await stat(two)).ino).not.toBe((await stat(one)).ino)
  })
})

test("an image goes with the last link but the store's", async () => {
  const [one, two] = [await imported(callers, "one"), await imported(callers, "two")]
  await rm(one)
  expect(await removeUnusedImages(store)).toBe(0)

  await rm(two)

  expect(await removeUnusedImages(store)).toBe(1)
  expect(await readdir(store.dir)).toEqual([])
  expect(await removeUnusedImages({ dir: join(root, "never-made") })).toBe(0)
})

describe("a caller's path that comes to mean something else", () => {
  const refused = { code: "invalid_request" }

  test("is not followed through a link, nor waited for at a pipe", async () => {
    await symlink(callers, join(root, "hp/link"))
    await run("mkfifo", [join(root, "hp/pipe")])

    await expect(openHostFileAt(join(root, "hp/link"))).rejects.toMatchObject(refused)
    await expect(openHostFileAt(join(root, "hp/pipe"))).rejects.toMatchObject(refused)
  })

  test("is judged by what was opened, also while a directory above it is swapped for a link", async () => {
    const [inside, outside, held] = [join(root, "hp/dir"), join(root, "outside"), join(root, "hp/held")]
    for (const dir of [inside, outside]) await mkdir(dir)
    await writeFile(join(inside, "f"), "inside")
    await writeFile(join(outside, "f"), "outside")
    const link = join(root, "hp/link")
    await symlink(outside, link)
    const steps = [
      [inside, held],
      [link, inside],
      [inside, link],
      [held, inside],
    ] as const
    const swapping = { over: false }
    const swap = async (): Promise<void> => {
      for (let round = 0; round < 200; round += 1) for (const [from, to] of steps) await rename(from, to)
    }
    const ended = swap().finally(() => void (swapping.over = true))
    const rules = { hostPaths: [join(root, "hp")], dataDir: join(root, "data") }
    const found = new Set<string>()

    while (!swapping.over) {
      const file = await openHostFile(join(inside, "f"), rules).catch(() => undefined)
      if (file === undefined) continue
      found.add(await file.handle.readFile("utf8"))
      await file[Symbol.asyncDispose]()
    }
    await ended

    expect(found).not.toContain("outside")
  })
})
