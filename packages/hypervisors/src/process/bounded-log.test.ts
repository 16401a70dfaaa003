import { appendFile, link, mkdtemp, open, readFile, rm, stat, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { beginLog, boundLogs } from "./bounded-log.ts"

const bytesMax = 8_192

async function folder(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), "stillframe-log-"))
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

test("a log that is too large begins anew, its newest bytes beside it, and its writer goes on", async () => {
  await using dir = await folder()
  const log = join(dir.path, "serial.log")
  await using writer = await open(log, "a")
  await writer.write("old ".repeat(10_000))
  await writer.write("new!".repeat(bytesMax / 4))

  await boundLogs(dir.path, bytesMax)
  await writer.write("after")

  expect(await readFile(`${log}.1`, "latin1")).toBe("new!".repeat(bytesMax / 4))
  expect(await readFile(log, "latin1")).toBe("after")
})

test("a log whose writer does not append keeps its bounds on disk as well", async () => {
  await using dir = await folder()
  const log = join(dir.path, "serial.log")
  await using writer = await open(log, "w")
  for (let round = 0; round < 4; round++) {
    await writer.write(Buffer.alloc(3 * bytesMax, 65 + round))
    await boundLogs(dir.path, bytesMax)
    expect(await readFile(`${log}.1`, "latin1")).toBe(String.fromCharCode(65 + round).repeat(bytesMax))
  }
  await writer.write("end")
  expect((await stat(log)).blocks * 512).toBeLessThanOrEqual(bytesMax)
})

test("a log within its bounds, and what is no log, stay as they are", async () => {
  await using dir = await folder()
  await writeFile(join(dir.path, "qemu.log"), "a".repeat(bytesMax))
  await writeFile(join(dir.path, "disk0.0.qcow2"), "a".repeat(9 * bytesMax))

  await boundLogs(dir.path, bytesMax)

  expect((await stat(join(dir.path, "qemu.log"))).size).toBe(bytesMax)
  expect((await stat(join(dir.path, "disk0.0.qcow2"))).size).toBe(9 * bytesMax)
})

test("a name that a guest that broke out may have given to another file is not followed", async () => {
  await using dir = await folder()
  await using other = await folder()
  const victim = join(other.path, "victim")
  await writeFile(victim, "a".repeat(9 * bytesMax))
  await symlink(victim, join(dir.path, "serial.log"))
  await link(victim, join(dir.path, "qemu.log"))

  await boundLogs(dir.path, bytesMax)
  await boundLogs(join(other.path, "nothing"), bytesMax)

  expect((await stat(victim)).size).toBe(9 * bytesMax)
})

test("the log of the last run is kept when the next one begins", async () => {
  await using dir = await folder()
  const log = join(dir.path, "serial.log")
  await beginLog(log)
  await appendFile(log, "first run")
  await beginLog(log)

  expect(await readFile(`${log}.1`, "latin1")).toBe("first run")
  await expect(stat(log)).rejects.toMatchObject({ code: "ENOENT" })
})
