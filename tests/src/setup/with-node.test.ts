import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import { cp, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { afterEach, beforeEach, expect, test } from "vitest"

const scripts = join(import.meta.dirname, "..", "..", "..", "scripts")

// A checkout of nothing but the scripts, with its dependencies installed: what is tried here needs no network.
let checkout: string

beforeEach(async () => {
  checkout = await mkdtemp(join(tmpdir(), "stillframe-checkout-"))
  await cp(scripts, join(checkout, "scripts"), { recursive: true })
  await mkdir(join(checkout, "node_modules"))
  await writeFile(join(checkout, "package-lock.json"), "{}")
  const lock = createHash("sha256").update("{}").digest("hex")
  await writeFile(
    join(checkout, "node_modules", ".stillframe-installed"),
    JSON.stringify({ lock, withTools: true }),
  )
})

afterEach(async () => {
  await rm(checkout, { recursive: true })
})

test("the command's exit status is handed on", () => {
  expect(spawnSync(process.execPath, withNode("process.exit(7)")).status).toBe(7)
})

test("the command runs under a recent Node and finds what the set-up brought last of all", () => {
  const { stdout } = spawnSync(process.execPath, withNode("console.log(process.version, process.env.PATH)"), {
    encoding: "utf8",
  })

  expect(stdout).toMatch(/^v(2[4-9]|[3-9]\d)\./)
  expect(stdout.trim().endsWith(`:${join(checkout, ".tools", "bin")}`)).toBe(true)
})

test.each(["SIGINT", "SIGTERM"] as const)(
  "%s reaches the command, which ends in its own way",
  async (signal) => {
    const code = `process.on("${signal}", () => process.exit(9)); console.log(process.pid); process.stdin.resume()`
    const child = spawn(process.execPath, withNode(code))
    await firstLine(child)

    child.kill(signal)

    expect(await once(child, "exit")).toEqual([9, null])
  },
)

test("the command ends when the script is killed outright", async () => {
  const child = spawn(process.execPath, withNode("console.log(process.pid); setInterval(() => {}, 1000)"))
  const pid = Number(await firstLine(child))

  child.kill("SIGKILL")

  await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false)
})

test("two at once both run their command", async () => {
  const children = [spawn(process.execPath, withNode("")), spawn(process.execPath, withNode(""))]

  expect(await Promise.all(children.map((child) => once(child, "exit")))).toEqual([
    [0, null],
    [0, null],
  ])
})

test("an unknown mode is answered with the usage", () => {
  const { status, stderr } = spawnSync(
    process.execPath,
    [join(checkout, "scripts", "with-node.mjs"), "fly", "--", "node"],
    {
      encoding: "utf8",
    },
  )

  expect({ status, stderr }).toEqual({
    status: 1,
    stderr: expect.stringMatching(/^Usage: .*start\|demo\|test\|check.*\n$/),
  })
})

test("without a network the set-up ends in one sentence with the command that helps, and leaves nothing half-made", async () => {
  const nowhere = "http://127.0.0.1:9"
  const { status, stderr } = spawnSync(process.execPath, [join(checkout, "scripts", "setup.ts"), "demo"], {
    encoding: "utf8",
    env: { PATH: "/usr/bin:/bin", http_proxy: nowhere, https_proxy: nowhere },
  })

  expect(status).toBe(1)
  expect(stderr.trim().split("\n")).toHaveLength(1)
  expect(stderr).toMatch(/could not be fetched .*sudo apt-get install|has no apt-get|brew install qemu/)
  expect(await readdir(join(checkout, ".tools"))).toEqual(["unfinished"])
})

function withNode(code: string): string[] {
  return [join(checkout, "scripts", "with-node.mjs"), "check", "--", "node", "-e", code]
}

async function firstLine(child: ChildProcess): Promise<string> {
  if (child.stdout === null) throw new Error("the command's output is not a pipe")
  const [line] = (await once(createInterface(child.stdout), "line")) as [string]
  return line
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    // No such process.
    return false
  }
}
