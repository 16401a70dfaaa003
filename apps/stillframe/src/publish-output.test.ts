import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, beforeEach, expect, test } from "vitest"
import { publishOutput } from "./publish-output.ts"

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stillframe-publish-"))
})
afterEach(() => rm(dir, { recursive: true }))

test("an output gets its name when it is whole", async () => {
  const path = join(dir, "out")

  await publishOutput({ kind: "file", path, replaces: false }, async (draft) => {
    await writeFile(draft, "content")
    expect(await readdir(dir)).not.toContain("out")
  })

  expect(await readdir(dir)).toEqual(["out"])
  expect(await readFile(path, "utf8")).toBe("content")
})

test("work is kept, and so is the file that took its name meanwhile", async () => {
  const path = join(dir, "out")
  let kept = ""

  const published = publishOutput({ kind: "file", path, replaces: false }, async (draft) => {
    kept = draft
    await writeFile(draft, "hours of work")
    await writeFile(path, "another's")
  })

  await expect(published).rejects.toThrow(`it is kept as ${dir}`)
  expect(await readFile(kept, "utf8")).toBe("hours of work")
  expect(await readFile(path, "utf8")).toBe("another's")
})
