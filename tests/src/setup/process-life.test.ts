import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { expect, test } from "vitest"

const processModule = join(import.meta.dirname, "..", "..", "..", "packages", "runtime", "src", "process.ts")

test.each(["SIGTERM", "SIGINT", "SIGHUP"] as const)(
  "%s gives back what the process holds and ends it with status 0",
  async (signal) => {
    const app = start(`resources.defer(() => console.log("given back"))`)
    await app.line("started")

    app.child.kill(signal)

    expect(await app.ended).toEqual([0, null])
    expect(app.lines).toContain("given back")
  },
)

test("a signal during a start that hangs ends it, in words", async () => {
  const app = start(`console.log("begun"); await new Promise(() => {})`)
  await app.line("begun")

  app.child.kill("SIGTERM")

  expect(await app.ended).toEqual([0, null])
  expect(app.lines.join("\n")).toContain("the start did not end when it was told to")
})

test("a signal during a start that ends when it is told to is no failure", async () => {
  const app = start(`console.log("begun")
    await new Promise((_, reject) => stopping.addEventListener("abort", () => reject(stopping.reason)))`)
  await app.line("begun")

  app.child.kill("SIGTERM")

  expect(await app.ended).toEqual([0, null])
  expect(app.lines.join("\n")).not.toMatch(/fatal|stack/)
})

test("a timer that a library has left does not keep a process that has given everything back", async () => {
  const app = start(`setInterval(() => {}, 1_000)`)
  await app.line("started")

  app.child.kill("SIGTERM")

  expect(await app.ended).toEqual([0, null])
  expect(app.lines.join("\n")).not.toContain("deadline")
})

test("a thread that hangs in a file system does not keep the process", async () => {
  // The open of a pipe waits for its other end, as a call to a server that is gone does.
  const app = start(`const { execFileSync } = await import("node:child_process")
    const { open, rm } = await import("node:fs/promises")
    const pipe = "/tmp/stillframe-hangs-" + process.pid
    execFileSync("mkfifo", [pipe])
    void open(pipe, "r")
    resources.defer(() => rm(pipe))`)
  await app.line("started")

  app.child.kill("SIGTERM")

  expect(await app.ended).toEqual([null, "SIGKILL"])
})

test("a worker thread that is waited for and hangs in a file system does not keep the process", async () => {
  const app = start(`const { execFileSync } = await import("node:child_process")
    const { rm } = await import("node:fs/promises")
    const { once } = await import("node:events")
    const { Worker } = await import("node:worker_threads")
    const pipe = "/tmp/stillframe-thread-hangs-" + process.pid
    execFileSync("mkfifo", [pipe])
    const thread = new Worker(
      'require("node:worker_threads").parentPort.postMessage("begins"); require("node:fs").openSync(' + JSON.stringify(pipe) + ')',
      { eval: true, execArgv: [] })
    thread.on("message", () => {})
    await once(thread, "message")
    resources.defer(() => rm(pipe))`)
  await app.line("started")

  app.child.kill("SIGTERM")

  expect(await app.ended).toEqual([null, "SIGKILL"])
})

test("the same signal twice at once is one request, and a later one ends the process at once, in words", async () => {
  const app = start(
    `resources.defer(() => new Promise((end) => { console.log("held"); setTimeout(end, 15_000) }))`,
  )
  await app.line("started")

  app.child.kill("SIGINT")
  app.child.kill("SIGINT")
  await app.line("held")
  const again = setInterval(() => app.child.kill("SIGINT"), 100)

  expect(await app.ended).toEqual([null, "SIGINT"])
  clearInterval(again)
  expect(app.lines.filter((line) => line.includes("SIGINT came again: ending at once"))).toHaveLength(1)
})

interface App {
  readonly child: ChildProcess
  readonly lines: readonly string[]
  readonly ended: Promise<unknown[]>
  line(text: string): Promise<void>
}

/** A process whose start is `body`. */
function start(body: string): App {
  const code = `import { runProcess } from ${JSON.stringify(processModule)}
    await runProcess("test", async ({ resources, stopping }) => {
      const server = setInterval(() => {}, 1_000)
      resources.defer(() => clearInterval(server))
      ${body} })`
  const child = spawn(process.execPath, ["--input-type=module", "-e", code], {
    stdio: ["ignore", "pipe", "pipe"],
  })
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr])
    createInterface(stream).on("line", (line) => lines.push(line))
  return {
    child,
    lines,
    ended: once(child, "close"),
    line: async (text) => {
      await expect.poll(() => lines.join("\n")).toContain(text)
    },
  }
}
