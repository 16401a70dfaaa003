import { execFile } from "node:child_process"
import { once } from "node:events"
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { expect, test } from "vitest"
import { openRegular, readRegular } from "./open-regular.ts"

const run = promisify(execFile)

// Another user put it there: an open that waits for a pipe's other end would never return.
test.for(["a pipe", "a link", "a directory", "a socket", "a device"])(
  "%s in a file's place is refused at once",
  async (what) => {
    await using opened = new AsyncDisposableStack()
    const dir = await mkdtemp(join(tmpdir(), "stillframe-regular-"))
    opened.defer(() => rm(dir, { recursive: true }))
    let path = join(dir, "file")
    if (what === "a pipe") await run("mkfifo", [path])
    if (what === "a link") await writeFile(join(dir, "elsewhere"), "x").then(() => symlink("elsewhere", path))
    if (what === "a directory") await mkdir(path)
    if (what === "a device") path = "/dev/zero"
    if (what === "a socket") await once(opened.use(createServer().listen(path)), "listening")

    await expect(openRegular(path)).rejects.toMatchObject({
      code: "corrupted",
      message: expect.stringContaining("lies where a file should"),
    })
  },
)

test("a small file is read whole, and a larger one is not", async () => {
  await using opened = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), "stillframe-regular-"))
  opened.defer(() => rm(dir, { recursive: true }))
  await writeFile(join(dir, "file"), "text")
  expect(await readRegular(join(dir, "file"), 4)).toBe("text")
  await expect(readRegular(join(dir, "file"), 3)).rejects.toMatchObject({ code: "corrupted" })
})
