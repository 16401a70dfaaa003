import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { watches } from "@stillframe/capture-worker/watch/watches"
import { measureClock } from "@stillframe/db/hosts/measure-clock"
import { heartbeat } from "@stillframe/db/hosts/register"
import { advanceInstance, createInstance, findInstance } from "@stillframe/db/instances/instances"
import { createLogger } from "@stillframe/runtime/logger"
import { generationDir } from "@stillframe/storage/layout"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"

const clusterId = "cluster"
const host = "h"
const tools = { name: "qemu", binary: "qemu", qemuImg: "qemu-img" } as const

/**
 * A program that is a QEMU on `watch.sock` of its directory until it reads a word; then it plays its trick
 * and lives on.
 */
const liar = (trick: string): string => `
  const greeting = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: [] } }
  const server = require("node:net").createServer((socket) => {
    socket.on("error", () => {})
    socket.write(JSON.stringify(greeting) + "\\n")
    require("node:readline").createInterface({ input: socket }).on("error", () => {}).on("line", (line) => {
      const { execute, id } = JSON.parse(line)
      socket.write(JSON.stringify({ return: { running: true, status: "running" }, id }) + "\\n")
      if (execute === "query-status") process.stdout.write("watched")
    })
    process.stdin.once("data", () => { ${trick} })
  })
  server.listen("watch.sock", () => process.stdout.write("listens"))
  setInterval(() => {}, 1000)`

// A guest that has broken out of its QEMU does as it likes with the QEMU's sockets.
test.for([
  ["sends a line without an end", 'socket.write("a".repeat(1_000_000))', "a line of more than 65536 bytes"],
  ["closes its monitor and lives on", "socket.destroy(); server.close()", "closed its monitor and runs on"],
])("a VM whose process %s is never recorded as ended while it runs", async ([, trick = "", why]) => {
  await using opened = new AsyncDisposableStack()
  const { db } = opened.use(await testDatabase())
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-fenced-"))
  opened.defer(() => rm(dataDir, { recursive: true }))
  await heartbeat(db, { name: host, hostId: host, bootId: "b", pool: "p", hypervisors: {} })
  const facts = { image: "heartbeat", hypervisor: "qemu", host, launch: {}, vcpus: 1, memoryMib: 64 } as const
  const { id } = await createInstance(db, { name: "liar", ...facts })
  const cwd = generationDir(dataDir, id, 1)
  await mkdir(cwd, { recursive: true })
  const vm = spawn(process.execPath, ["-e", liar(trick), `guest=stillframe-${clusterId}-${id}`], { cwd })
  opened.defer(async () => {
    if (vm.exitCode === null && vm.signalCode === null && vm.kill("SIGKILL")) await once(vm, "exit")
  })
  await once(vm.stdout, "data")
  const instance = await advanceInstance(db, id, "Running", { generation: 1, pid: vm.pid ?? null })
  const clock = await measureClock(db)
  const watching = opened.use(
    watches({
      db,
      clusterId,
      hypervisors: new Map([["qemu", { tools }]]),
      home: { identify: async () => {} },
      clock: { reading: () => clock },
      config: { dataDir, qemuImg: "qemu-img", resumeRoomBytes: 0, attachedLookMs: 30_000 },
      committed: () => {},
      log: createLogger({ service: "test", level: "silent" }),
    }),
  )
  if (instance === undefined) throw new Error("not inserted")
  watching.start(instance)
  await once(vm.stdout, "data")

  vm.stdin.write("now")

  const shown = () => findInstance(db, id)
  await expect
    .poll(shown, { timeout: 8_000 })
    .toMatchObject({ state: "Unknown", state_error: expect.stringContaining(why ?? "") })
  const exited = once(vm, "exit")
  vm.kill("SIGKILL")
  await exited
  await expect.poll(shown, { timeout: 5_000 }).toMatchObject({ state: "Stopped" })
})
