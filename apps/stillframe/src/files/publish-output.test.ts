import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { afterEach, beforeEach, expect, test } from "vitest"
import { draftIn } from "./draft-names.ts"
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

test("only what processes left that are gone is removed from beside a new output", async () => {
  const [, start = ""] = basename(await draftIn(dir)).split(`-${process.pid}-`)
  const own = basename(await draftIn(dir))
  const names = {
    running: own,
    gone: own.replace(`-${process.pid}-`, "-4194304999-"),
    goneAndItsNumberTaken: own.replace(`-${start.split("-")[0]}-`, "-1-"),
    ofAnotherSystem: own.replace(/stillframe-[0-9a-f]+-\d+/, "stillframe-00000000-4194304999"),
    directory: own.replace(`-${process.pid}-`, "-4194304998-"),
    ofTheUser: "notes.partial",
  }
  for (const [kind, name] of Object.entries(names))
    await (kind === "directory" ? mkdir(join(dir, name)) : writeFile(join(dir, name), ""))

  await publishOutput({ kind: "file", path: join(dir, "out"), replaces: false }, (draft) =>
    writeFile(draft, ""),
  )

  const kept = [names.running, names.ofAnotherSystem, names.directory, names.ofTheUser]
  expect((await readdir(dir)).toSorted()).toEqual(["out", ...kept].toSorted())
})

test("work is kept, and so is the file that took its name meanwhile", async () => {
  const path = join(dir, "out")

  const published = publishOutput({ kind: "file", path, replaces: false }, async (draft) => {
    await writeFile(draft, "hours of work")
    await writeFile(path, "another's")
  })

  await expect(published).rejects.toThrow(`it is kept as ${dir}`)
  const name = (await readdir(dir)).find((entry) => entry !== "out") ?? ""
  await expect(published).rejects.toThrow(name)
  expect(name).not.toContain(".partial")
  expect(await readFile(join(dir, name), "utf8")).toBe("hours of work")
  expect(await readFile(path, "utf8")).toBe("another's")
})
