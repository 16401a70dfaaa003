import { execFile } from "node:child_process"
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterEach, beforeEach, expect, test } from "vitest"
import { saidOf } from "./said-of.ts"

const run = promisify(execFile)
const nobody = 65_534

let root: string
let dir: string

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "stillframe-unusable-"))
  dir = join(root, "named")
})

afterEach(() => rm(root, { recursive: true }))

/** The words of every start that names `dir`. */
function everywhere(reason: string): Record<string, string> {
  const words = (setting: string): string => `${setting}: <dir> can't be used: ${reason}`
  return {
    DATA_DIR: words("DATA_DIR"),
    STORAGE_DIR: words("STORAGE_DIR"),
    "STORAGE_DIR of a known pool": words("STORAGE_DIR"),
    images: words("DATA_DIR"),
  }
}

test("a file in the place of a directory is called that", async () => {
  await writeFile(dir, "")

  expect(await saidOf(dir)).toEqual(
    everywhere("it, or a part of its path, is not a directory; name a directory"),
  )
})

test("a file system that takes no directories is called that", async () => {
  dir = "/proc/stillframe"

  expect(await saidOf(dir)).toEqual({
    ...everywhere("no directory can be made there; name one on a disk"),
    "STORAGE_DIR of a known pool": expect.stringContaining("has no pool.json"),
  })
})

test("a directory on a file system that is mounted read-only is called that", async ({ skip }) => {
  await using _mount = await mounted("ro", skip)

  expect(await saidOf(dir)).toEqual(
    everywhere("its file system is read-only; mount it for writing, or name another directory"),
  )
})

test("a directory that belongs to another user is called that", async ({ skip }) => {
  await mkdir(dir)
  await chmod(root, 0o755)
  await chmod(dir, 0o555)

  expect(await saidToNobody(skip)).toEqual(
    everywhere("this process may not write to it; change its owner or mode, or name another directory"),
  )
})

test("a full disk is called that, and is no reason to leave out more than the built-in guests", async ({
  skip,
}) => {
  await using _mount = await mounted("size=64k", skip)
  await writeFile(join(dir, "filler"), Buffer.alloc(64 * 1_024)).catch(() => undefined)

  const full = everywhere("its disk is full; free some room on it")
  expect(await saidOf(dir)).toEqual({
    ...full,
    "STORAGE_DIR of a known pool": expect.stringContaining("has no pool.json"),
    images: expect.stringMatching(/^left out: .*heartbeat\.elf$/),
  })
})

async function mounted(options: string, skip: (note: string) => never): Promise<AsyncDisposable> {
  await mkdir(dir)
  await run("mount", ["-t", "tmpfs", "-o", options, "tmpfs", dir]).catch((error: Error) =>
    skip(`nothing can be mounted here: ${error.message}`),
  )
  return { [Symbol.asyncDispose]: async () => void (await run("umount", [dir])) }
}

/** Root may write everywhere, so another user asks in its place. */
async function saidToNobody(skip: (note: string) => never): Promise<Record<string, string>> {
  if (process.getuid?.() !== 0) return saidOf(dir)
  const script = join(import.meta.dirname, "said-of.ts")
  const asNobody = { uid: nobody, gid: nobody, cwd: "/" }
  const { stdout } = await run(process.execPath, [script, dir], asNobody).catch((error: Error) =>
    skip(`another user cannot read this checkout: ${error.message}`),
  )
  return JSON.parse(stdout) as Record<string, string>
}
