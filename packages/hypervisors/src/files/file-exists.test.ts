import { mkdtemp, rm, symlink } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { fileExists } from "./file-exists.ts"

test("only what the system calls absent is absent", async () => {
  const dir = await mkdtemp(join(tmpdir(), "file-exists-"))
  try {
    await symlink("loop", join(dir, "loop"))

    expect(await fileExists(dir)).toBe(true)
    expect(await fileExists(join(dir, "absent"))).toBe(false)
    await expect(fileExists(join(dir, "loop"))).rejects.toMatchObject({ code: "ELOOP" })
  } finally {
    await rm(dir, { recursive: true })
  }
})
