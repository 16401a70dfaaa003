import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { orphansOf, removeEmptied, watchOrphans } from "@stillframe/capture-worker/operations/orphans"
import { clockPlus, openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { forgetHost } from "@stillframe/db/hosts/forget"
import { heartbeat } from "@stillframe/db/hosts/register"
import { createInstance, deleteInstance } from "@stillframe/db/instances/instances"
import { createLogger } from "@stillframe/runtime/logger"
import { openProblems } from "@stillframe/runtime/problems"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"

const log = createLogger({ service: "test", level: "silent" })
const clusterId = "cluster"

async function host(db: OwnedDatabase): Promise<void> {
  await heartbeat(db, { name: "h", hostId: "h", bootId: "b", pool: "p", hypervisors: {} })
}

/** An instance of the host `h` whose directory has a file. */
async function instance(db: OwnedDatabase, dataDir: string, name: string): Promise<string> {
  const common = {
    image: "heartbeat",
    hypervisor: "qemu",
    host: "h",
    launch: {},
    vcpus: 1,
    memoryMib: 64,
  } as const
  const { id } = await createInstance(db, { name, ...common })
  await mkdir(join(dataDir, "instances", id, "1"), { recursive: true })
  await writeFile(join(dataDir, "instances", id, "1", "serial.log"), "tick\n")
  return id
}

test("an empty directory of an instance that is gone is removed, none of a living one and none with a file", async () => {
  await using opened = new AsyncDisposableStack()
  const { db } = opened.use(await testDatabase())
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-orphans-"))
  opened.defer(() => rm(dataDir, { recursive: true }))
  await host(db)
  const [gone, living, files] = [
    await instance(db, dataDir, "gone"),
    await instance(db, dataDir, "living"),
    await instance(db, dataDir, "files"),
  ]
  for (const id of [gone, living]) await rm(join(dataDir, "instances", id, "1"), { recursive: true })
  for (const id of [gone, files]) await deleteInstance(db, id)

  await removeEmptied({ db, config: { dataDir } })

  expect(new Set(await readdir(join(dataDir, "instances")))).toEqual(new Set([living, files]))
})

test("a host that comes back after it was forgotten reports its VMs and files, and touches neither", async () => {
  await using opened = new AsyncDisposableStack()
  const { db } = opened.use(await testDatabase())
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-orphans-"))
  opened.defer(() => rm(dataDir, { recursive: true }))
  await host(db)
  const forgotten = await instance(db, dataDir, "forgotten")
  // A process that a host takes for the VM of this instance, by its arguments.
  const vm = spawn(process.execPath, [
    "-e",
    "setInterval(() => {}, 1000)",
    `guest=stillframe-${clusterId}-${forgotten}`,
  ])
  await once(vm, "spawn")
  opened.defer(async () => {
    vm.kill("SIGKILL")
    await once(vm, "exit")
  })
  await db
    .updateTable("hosts")
    .set({ heartbeat_at: clockPlus(-60_000) })
    .execute()
  await forgetHost(db, "h", 1)
  await host(db)
  const living = await instance(db, dataDir, "living")
  const look = () => orphansOf({ clusterId, db, log, problems: openProblems(log), config: { dataDir } })

  const problem = await look()

  expect(problem?.code).toBe("orphaned_instances")
  expect(problem?.message).toContain(`${forgotten} (its VM runs as process ${vm.pid})`)
  expect(problem?.message).not.toContain(living)
  expect(vm.exitCode).toBe(null)
  expect(await readdir(join(dataDir, "instances", forgotten, "1"))).toEqual(["serial.log"])

  await rm(join(dataDir, "instances", forgotten), { recursive: true })
  expect(await look()).toBe(undefined)
})

test("a look for orphans that cannot reach the database leaves that to the database's own line in the log", async () => {
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  const told = createLogger({ service: "test", level: "info", destination })
  // Nothing listens there.
  await using db = openDatabase({ url: "postgres://nobody@127.0.0.1:1/none", onIdleError: () => {} })
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-orphans-"))
  await mkdir(join(dataDir, "instances", "one"), { recursive: true })

  const problems = openProblems(log)
  const leadBack = async (): Promise<void> => {}
  await watchOrphans({ clusterId, db, log: told, problems, config: { dataDir }, leadBack })[
    Symbol.asyncDispose
  ]()

  await rm(dataDir, { recursive: true })
  expect(lines).toEqual([])
})
