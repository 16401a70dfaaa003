import { spawn } from "node:child_process"
import { once } from "node:events"
import { readFile } from "node:fs/promises"
import { expect, test } from "vitest"
import { identifyProcess } from "./processes.ts"

/** Ends the first thread alone, as happens for a moment to every process that is killed. */
const program = `
  const koffi = require("koffi")
  const { Worker } = require("node:worker_threads")
  new Worker("setInterval(() => {}, 1000); require('node:fs').writeSync(1, 'up')", { eval: true })
  const exit = process.arch === "arm64" ? 93 : 60
  process.on("SIGUSR2", () => koffi.load("libc.so.6").func("long syscall(long, long)")(exit, 0))
`

test.runIf(process.platform === "linux")(
  "a process whose first thread has ended lives until its last one has",
  async () => {
    const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] })
    const ended = once(child, "exit")
    const pid = child.pid ?? 0
    try {
      await once(child.stdout, "data")
      const identity = await identifyProcess(pid)

      child.kill("SIGUSR2")
      await expect.poll(() => readFile(`/proc/${pid}/stat`, "utf8")).toContain(") Z ")

      expect(identity).toBeDefined()
      expect(await identifyProcess(pid)).toEqual(identity)
    } finally {
      child.kill("SIGKILL")
      await ended
    }
    expect(await identifyProcess(pid)).toBeUndefined()
  },
)
