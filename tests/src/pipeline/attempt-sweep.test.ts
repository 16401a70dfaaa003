import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { removeDeadAttempts } from "@stillframe/compression-worker/attempt-sweep"
import type { OwnedDatabase } from "@stillframe/db/client"
import { clusterId } from "@stillframe/db/hosts/hosts"
import { createInstance, findInstanceEvenDeleted } from "@stillframe/db/instances/instances"
import { claimOperation, createOperation } from "@stillframe/db/operations/operations"
import { createSnapshot } from "@stillframe/db/snapshots/snapshots"
import { createLogger } from "@stillframe/runtime/logger"
import { openProblems } from "@stillframe/runtime/problems"
import { makePool } from "@stillframe/storage/places/claim-pool"
import { poolPlace } from "@stillframe/storage/places/place"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"

const twoHoursAgo = new Date(Date.now() - 2 * 3_600_000)

async function attempt(
  storageDir: string,
  token: string,
  { file, old }: { file: string; old: boolean },
): Promise<void> {
  const dir = join(storageDir, "snapshots", "a", token)
  await mkdir(dir, { recursive: true })
  await writeFile(join(dir, file), "x")
  if (old) await utimes(dir, twoHoursAgo, twoHoursAgo)
}

/** A snapshot whose capture waits. */
async function waitingSnapshot(db: OwnedDatabase, instanceId: string): Promise<string> {
  const instance = await findInstanceEvenDeleted(db, instanceId)
  return (await createSnapshot(db, { instance, kind: "Standby", queue: "q", pool: "p" })).id
}

test.each(["0 hours", "2 hours", "-2 hours"])(
  "of attempts only those go that are old, unsealed, and held by no operation; the database's clock is ahead by %s",
  async (clockOfAll) => {
    await using opened = new AsyncDisposableStack()
    const { db } = opened.use(await testDatabase({ clockOfAll }))
    const storageDir = await mkdtemp(join(tmpdir(), "stillframe-pool-"))
    opened.defer(() => rm(storageDir, { recursive: true }))
    const source = {
      name: "vm",
      image: "heartbeat",
      hypervisor: "qemu",
      host: "h",
      launch: {},
      vcpus: 1,
      memoryMib: 64,
    } as const
    const { id: instanceId } = await createInstance(db, source)
    const id = await createOperation(db, { kind: "capture", queue: "q", instanceId })
    const held = await claimOperation(db, { id, worker: "w", queue: "q" })
    const waiting = await waitingSnapshot(db, instanceId)
    await attempt(storageDir, "dead", { file: "memory", old: true })
    await attempt(storageDir, "young", { file: "memory", old: false })
    await attempt(storageDir, "sealed", { file: "manifest.json", old: true })
    await attempt(storageDir, held?.token ?? "", { file: "memory", old: true })

    for (const [name, old] of [
      ["emptied", true],
      [waiting, true],
      ["young", false],
    ] as const) {
      const dir = join(storageDir, "snapshots", name)
      await mkdir(dir)
      if (old) await utimes(dir, twoHoursAgo, twoHoursAgo)
    }

    const config = {
      databaseUrl: "",
      databaseDirectUrl: "",
      redisUrl: undefined,
      storageDir,
      host: "h",
      pool: "p",
      threads: 1,
      scrubIntervalMs: 0,
    }
    const log = createLogger({ service: "test", level: "silent" })
    const installation = await clusterId(db)
    const pool = poolPlace(storageDir, { id: await makePool(storageDir, installation), installation })
    await removeDeadAttempts({ db, config, pool, log, committed: () => {}, problems: openProblems(log) })

    const left = await readdir(join(storageDir, "snapshots", "a"))
    expect(new Set(left)).toEqual(new Set(["sealed", "young", held?.token]))
    expect(new Set(await readdir(join(storageDir, "snapshots")))).toEqual(new Set(["a", "young", waiting]))
    expect((await readdir(storageDir)).toSorted()).toEqual(["pool.json", "snapshots"])
  },
)
