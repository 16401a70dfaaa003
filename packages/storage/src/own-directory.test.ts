import { execFile } from "node:child_process"
import { chmod, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterEach, beforeEach, expect, test } from "vitest"
import { makeOwnDirectory } from "./own-directory.ts"

let dir: string

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-directories-"))
})

afterEach(async () => {
  await rm(dir, { recursive: true })
})

test("a directory is made with its parents, for its owner alone, and nothing is left in it", async () => {
  const path = join(dir, "a", "b", "c")

  await makeOwnDirectory("DATA_DIR", path)
  await makeOwnDirectory("DATA_DIR", path)

  expect(await readdir(path)).toEqual([])
  expect((await stat(path)).mode & 0o777).toBe(0o700)
})

test("a file in its place, or in the place of a parent, is named with its setting", async () => {
  const file = join(dir, "file")
  await writeFile(file, "kept")

  await expect(makeOwnDirectory("STORAGE_DIR", file)).rejects.toMatchObject({
    code: "invalid_request",
    message: `STORAGE_DIR: ${file} can't be used: it, or a part of its path, is not a directory; name a directory`,
  })
  await expect(makeOwnDirectory("STORAGE_DIR", join(file, "below"))).rejects.toThrow(/not a directory/)
})

test("a file system that takes no directories is refused at once", async () => {
  await expect(makeOwnDirectory("STORAGE_DIR", "/proc/stillframe/storage")).rejects.toThrow(
    "no directory can be made there",
  )
})

test("links in a circle and names that are too long are refused", async () => {
  await symlink(join(dir, "circle"), join(dir, "circle"))

  await expect(makeOwnDirectory("DATA_DIR", join(dir, "circle"))).rejects.toThrow("lead in a circle")
  await expect(makeOwnDirectory("DATA_DIR", join(dir, "x".repeat(300)))).rejects.toThrow("too long")
})

test.skipIf(process.getuid?.() === 0)("one that may not be written to is refused", async () => {
  await chmod(dir, 0o500)
  try {
    await expect(makeOwnDirectory("DATA_DIR", join(dir, "new"))).rejects.toThrow("may not write to it")
    await expect(makeOwnDirectory("DATA_DIR", dir)).rejects.toThrow("may not write to it")
  } finally {
    await chmod(dir, 0o700)
  }
})

test("one on a file system that is read-only is refused", async ({ skip }) => {
  const run = promisify(execFile)
  await run("mount", ["-t", "tmpfs", "-o", "ro", "tmpfs", dir]).catch((error: Error) =>
    skip(`nothing can be mounted here: ${error.message}`),
  )
  try {
    await expect(makeOwnDirectory("DATA_DIR", dir)).rejects.toThrow("read-only")
    await expect(makeOwnDirectory("DATA_DIR", join(dir, "new"))).rejects.toThrow("read-only")
  } finally {
    await run("umount", [dir])
  }
})
