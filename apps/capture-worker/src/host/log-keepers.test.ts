import { spawn } from "node:child_process"
import { once } from "node:events"
import { watch } from "node:fs"
import { mkdir, mkdtemp, realpath, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { endProcess, processAlive, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { processesWith } from "@stillframe/hypervisors/process/processes-with"
import { createLogger } from "@stillframe/runtime/logger"
import { expect, test } from "vitest"
import { startLogKeeper } from "./log-keepers.ts"

const logBytesMax = 1_024
const keeperPatienceMs = 3_000

/** A host with the directory of one VM, in which a process works. */
async function host(): Promise<AsyncDisposable & { dataDir: string; dir: string }> {
  await using opened = new AsyncDisposableStack()
  const dataDir = await realpath(await mkdtemp(join(tmpdir(), "stillframe-logs-")))
  opened.defer(() => rm(dataDir, { recursive: true }))
  opened.defer(async () => {
    for (const keeper of await keepersOf(dataDir)) await endProcess(keeper, { graceMs: 0 })
  })
  const dir = join(dataDir, "instances", "one", "1")
  await mkdir(dir, { recursive: true })
  const vm = spawn("sleep", ["600"], { cwd: dir, stdio: "ignore" })
  const ended = once(vm, "exit")
  opened.defer(async () => {
    vm.kill("SIGKILL")
    await ended
  })
  await once(vm, "spawn")
  const resources = opened.move()
  return { dataDir, dir, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

async function keepersOf(dataDir: string): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = []
  for await (const keeper of processesWith("cmdline", dataDir)) found.push(keeper)
  return found
}

/** Lets the VM's log grow, and waits until it is cut. */
async function expectCut(dir: string): Promise<void> {
  const log = join(dir, "serial.log")
  await writeFile(log, "x".repeat(2 * logBytesMax))
  for await (const _ of look(dir)) if ((await stat(log)).size === 0) return
}

/** Yields at once, and after each change in `dir`. */
async function* look(dir: string): AsyncGenerator<void> {
  const watcher = watch(dir)
  try {
    for (;;) {
      const changed = once(watcher, "change")
      yield
      await changed
    }
  } finally {
    watcher.close()
  }
}

test("a log keeper that hangs is told of, ended and replaced, under its own worker and under the next", async () => {
  await using opened = new AsyncDisposableStack()
  const { dataDir, dir } = opened.use(await host())
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  const log = createLogger({ service: "test", level: "info", destination })
  const start = (): Disposable => opened.use(startLogKeeper({ dataDir, logBytesMax, keeperPatienceMs }, log))
  const hang = async (): Promise<ProcessIdentity> => {
    const [keeper] = await keepersOf(dataDir)
    if (keeper === undefined) throw new Error("there is no keeper")
    process.kill(keeper.pid, "SIGSTOP")
    return keeper
  }

  const worker = start()
  await expectCut(dir)
  const first = await hang()
  await expectCut(dir)
  expect(await processAlive(first)).toBe(false)
  expect(lines.join("")).toContain("log keeper hangs; ending it")

  worker[Symbol.dispose]()
  const second = await hang()
  start()
  await expectCut(dir)
  expect(await processAlive(second)).toBe(false)
  expect(lines.join("")).toContain("log keeper of an earlier worker")
  expect(await keepersOf(dataDir)).toHaveLength(1)
})
