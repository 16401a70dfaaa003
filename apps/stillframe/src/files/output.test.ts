import { execFileSync } from "node:child_process"
import { watch } from "node:fs"
import { link, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, test, vi } from "vitest"
import { resolveOutput } from "./output.ts"

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-output-"))
  await writeFile(join(dir, "source"), "memory")
  await writeFile(join(dir, "file"), "mine")
  await link(join(dir, "source"), join(dir, "hard-link"))
  await mkdir(join(dir, "directory"))
  execFileSync("mkfifo", [join(dir, "pipe")])
  await symlink("file", join(dir, "link"))
  await symlink("absent", join(dir, "dangling"))
  await symlink("/dev/null", join(dir, "null"))
})
afterEach(() => rm(dir, { recursive: true }))

async function resolve(name: string, force: boolean): Promise<unknown> {
  return resolveOutput({ output: join(dir, name), force }, await stat(join(dir, "source")))
}

test("a name that is free becomes a file, and looking shows no watcher that name and leaves nothing", async () => {
  const before = await readdir(dir)
  const seen = new Set<string | null>()
  const watcher = watch(dir, (_event, name) => seen.add(name))

  expect(await resolve("new", false)).toEqual({ kind: "file", path: join(dir, "new"), replaces: false })
  // Events come in order: after this one, none of the others is missing.
  await writeFile(join(dir, "last"), "")
  await vi.waitUntil(() => seen.has("last"))
  watcher.close()
  expect([...seen]).not.toContain("new")
  await rm(join(dir, "last"))
  expect(await readdir(dir)).toEqual(before)
})

test.each(["file", "link"])("%s is replaced where it is, and only by --force", async (name) => {
  await expect(resolve(name, false)).rejects.toMatchObject({ code: "conflict" })

  expect(await resolve(name, true)).toEqual({ kind: "file", path: join(dir, "file"), replaces: true })
})

test.each([
  ["source", "is the source itself"],
  ["hard-link", "is the source itself"],
  ["directory", "is a directory"],
  ["dangling", "a symbolic link to a file that does not exist"],
])("%s is never an output", async (name, why) => {
  for (const force of [false, true])
    await expect(resolve(name, force)).rejects.toMatchObject({ message: expect.stringContaining(why) })
})

test.each(["pipe", "null"])("%s is written into, with --force and without", async (name) => {
  for (const force of [false, true])
    expect(await resolve(name, force)).toEqual({ kind: "pipe", path: join(dir, name) })
})

test.each(["new/", "", "absent/new", "a".repeat(256)])(
  "the name %j is refused before any work",
  async (name) => {
    const output = name === "" ? "" : join(dir, "x").slice(0, -1) + name
    await expect(resolveOutput({ output }, undefined)).rejects.toThrow(
      /does not name a file|ENOENT|ENAMETOOLONG/,
    )
  },
)

test.each([
  ["-", 1],
  ["/dev/stdout", 1],
  ["/dev/fd/63", 63],
])("%s is what the shell has opened", async (output, fd) => {
  expect(await resolveOutput({ output, force: true }, undefined)).toEqual({ kind: "descriptor", fd })
})
