import { mkdir, mkdtemp, rm, symlink } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createId } from "@stillframe/domain/ids"
import { expect, test } from "vitest"
import { holdHome, holdHostId } from "./home-lock.ts"

test("a directory is held by one worker at a time, by whatever path the other comes", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-home-"))
  try {
    await mkdir(join(dir, "data"))
    await symlink(join(dir, "data"), join(dir, "link"))
    const first = await holdHome(join(dir, "data"))

    await expect(holdHome(join(dir, "link"))).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringMatching(/another capture-worker runs on DATA_DIR .*link: stop it, or give/),
    })
    await using _elsewhere = await holdHome(dir)
    await first[Symbol.asyncDispose]()
    await using _next = await holdHome(join(dir, "data"))
  } finally {
    await rm(dir, { recursive: true })
  }
})

test("two copies of one directory are refused by the id in their host.json, with what to remove", async () => {
  const hostId = createId()
  const first = await holdHostId("/data", hostId)

  await expect(holdHostId("/copy", hostId)).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringMatching(/DATA_DIR \/copy: one of the two is a copy.*remove host\.json/),
  })
  await using _another = await holdHostId("/other", createId())
  await first[Symbol.asyncDispose]()
  await using _next = await holdHostId("/copy", hostId)
})
