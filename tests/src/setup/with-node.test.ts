import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { once } from "node:events"
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { constants, tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from "vitest"

const scripts = join(import.meta.dirname, "..", "..", "..", "scripts")

const nodeVersion = join("packages", "runtime", "src", "node-version.mjs")

// A checkout of nothing but the scripts, with its dependencies installed: what is tried here needs no
// network.
let checkout: string

beforeEach(async () => {
  checkout = await mkdtemp(join(tmpdir(), "stillframe-checkout-"))
  await cp(scripts, join(checkout, "scripts"), { recursive: true })
  await cp(join(scripts, "..", nodeVersion), join(checkout, nodeVersion))
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

describe("as an npm script", () => {
  test.each([
    ["start", "SIGTERM"],
    ["start", "SIGINT"],
    ["demo", "SIGTERM"],
    ["test", "SIGTERM"],
  ] as const)("a %s that npm gets %s for ends in its own way, before npm does", async (name, signal) => {
    const npm = await npmRun(
      name,
      `process.on("${signal}", () => setTimeout(() => process.exit(9), 300)); console.log(process.pid); setInterval(() => {}, 1000)`,
    )
    const pid = await npm.said

    npm.child.kill(signal)

    expect(await once(npm.child, "exit")).toEqual([9, null])
    expect(isAlive(pid)).toBe(false)
  })

  test.each(["SIGHUP", "SIGKILL"] as const)("the command ends when npm gets %s", async (signal) => {
    const npm = await npmRun("start", "console.log(process.pid); setInterval(() => {}, 1000)")
    const pid = await npm.said

    npm.child.kill(signal)

    await expect.poll(() => isAlive(pid), { timeout: 10_000 }).toBe(false)
  })

  test("the command ends when npm had ended before the script could look", async () => {
    const words = withNode("console.log(process.pid); setInterval(() => {}, 1000)")
    // $$ is the parent, also in the subshell, which goes on when that one is gone.
    const orphan = `(while kill -0 $$ 2>/dev/null; do sleep 0.05; done; exec "$0" "$@") &`
    const npm = spawn("/bin/sh", ["-c", orphan, process.execPath, ...words], {
      env: { ...process.env, npm_lifecycle_event: "start" },
      stdio: ["ignore", "pipe", "ignore"],
      detached: true,
    })
    const said: number[] = []
    npm.stdout.on("data", (data) => said.push(Number(data)))
    onTestFinished(() => said.filter(isAlive).forEach((pid) => process.kill(pid)))
    await once(npm, "exit")

    await expect.poll(() => npm.stdout.closed, { timeout: 10_000 }).toBe(true)
  })
})

test("a Ctrl-C of the whole process group reaches the command once", async () => {
  const code = `let count = 0; process.on("SIGINT", () => { count += 1; setTimeout(() => process.exit(count), 700) })
    console.log(process.pid); setInterval(() => {}, 1000)`
  const npm = await npmRun("start", code)
  await npm.said

  process.kill(-(npm.child.pid ?? 0), "SIGINT")

  expect(await once(npm.child, "exit")).toEqual([1, null])
})

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
  "%s ends a set-up under way with all it runs",
  async (signal) => {
    await rm(join(checkout, "node_modules", ".stillframe-installed"))
    const bin = join(checkout, "bin")
    await mkdir(bin)
    await writeFile(join(bin, "npm"), `#!/bin/sh\necho $$ >${join(checkout, "npm.pid")}\nexec sleep 1000\n`, {
      mode: 0o755,
    })
    const { npm_execpath: _, ...env } = process.env
    const child = spawn(process.execPath, withNode("console.log('ran')"), {
      env: { ...env, PATH: `${bin}:/usr/bin:/bin` },
    })
    const pidFile = (): Promise<string> => readFile(join(checkout, "npm.pid"), "utf8").catch(() => "")
    await expect.poll(pidFile).not.toBe("")
    const pid = Number(await pidFile())

    child.kill(signal)

    expect(await once(child, "exit")).toEqual([128 + constants.signals[signal], null])
    await expect.poll(() => isAlive(pid)).toBe(false)
  },
)

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

/**
 * Runs `code` by one of this checkout's own npm scripts, with what each brings left out, in a process group
 * of its own.
 */
async function npmRun(name: string, code: string): Promise<{ child: ChildProcess; said: Promise<number> }> {
  const manifest = JSON.parse(await readFile(join(scripts, "..", "package.json"), "utf8")) as {
    scripts: Record<string, string>
  }
  await writeFile(join(checkout, "command.cjs"), code)
  const script = manifest.scripts[name]?.replace(/ (start|demo|test) -- .*/, " check -- node command.cjs")
  await writeFile(join(checkout, "package.json"), JSON.stringify({ scripts: { [name]: script } }))
  const child = spawn("npm", ["run", "--silent", name], { cwd: checkout, detached: true })
  return { child, said: firstLine(child).then(Number) }
}

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
