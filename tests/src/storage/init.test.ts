import { execFile } from "node:child_process"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { compressionHeartbeat } from "@stillframe/db/hosts/compression-workers"
import { knownHost } from "@stillframe/db/hosts/hosts"
import { heartbeat, registerHost } from "@stillframe/db/hosts/register"
import { initHome, initPool } from "@stillframe/stillframe/init-place"
import { claimHome } from "@stillframe/storage/places/home"
import { expect, test } from "vitest"
import { installation, refusal, snapshotIn } from "./installation.ts"

const run = promisify(execFile)
const main = join(import.meta.dirname, "../../../apps/stillframe/src/main.ts")

const host = { bootId: "b", pool: "p", hypervisors: {} }

test("an empty directory becomes the pool when nothing is lost by that, and the one before is refused from then on", async () => {
  await using one = await installation()
  const before = await one.claim("p", one.dir("old"))

  const said = await initPool(one.db, { dir: one.dir("new"), name: "p", replaceLost: false })

  const id = await one.claim("p", one.dir("new"))
  expect(id).not.toBe(before)
  expect(said).toContain(id)
  await expect(one.claim("p", one.dir("old"))).rejects.toMatchObject(refusal(before, id))
  const again = await initPool(one.db, { dir: one.dir("new"), name: "p", replaceLost: false })
  expect(again).toContain("already")
})

test("one that lacks ready snapshots needs a word more, and these are then looked for and found missing", async () => {
  await using one = await installation()
  await one.claim("p", one.dir("old"))
  const lost = await snapshotIn(one, "p", one.dir("old"))
  await snapshotIn(one, "p", one.dir("new"))
  const asked = { dir: one.dir("new"), name: "p" }

  await expect(initPool(one.db, { ...asked, replaceLost: false })).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringMatching(/not in .*: 1\..*--replace-lost/),
  })
  await one.claim("p", one.dir("old"))
  await initPool(one.db, { ...asked, replaceLost: true })

  await one.claim("p", one.dir("new"))
  const waiting = one.db.selectFrom("operations").select("snapshot_id").where("kind", "=", "verify")
  expect(await waiting.execute()).toEqual([{ snapshot_id: lost }])
})

test("the command says what it did, and what it did not do with status 1", async () => {
  await using one = await installation()
  await one.claim("p", one.dir("old"))
  await snapshotIn(one, "p", one.dir("old"))
  const env = {
    PATH: process.env["PATH"],
    DATABASE_URL: one.databaseUrl,
    STORAGE_DIR: one.dir("new"),
    STORAGE_POOL: "p",
  }
  const command = (...options: string[]): Promise<{ stdout: string }> =>
    run(process.execPath, [main, "storage", "init", ...options], { env })

  await expect(command()).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/: 1\. Mount.*\n$/),
  })
  expect((await command("--replace-lost")).stdout).toContain("not in it: 1")
  expect((await command()).stdout).toContain("already")
})

test("neither another installation's directory nor another pool's is taken", async () => {
  await using one = await installation()
  await using other = await installation()
  await other.claim("p", other.dir("theirs"))
  await one.claim("q", one.dir("q"))
  const init = (dir: string): Promise<string> => initPool(one.db, { dir, name: "p", replaceLost: true })

  await expect(init(other.dir("theirs"))).rejects.toMatchObject(refusal(other.id, one.id))
  await expect(init(one.dir("q"))).rejects.toMatchObject(refusal("STORAGE_POOL=q"))
})

test("nothing is changed below workers that are up", async () => {
  await using one = await installation()
  await compressionHeartbeat(one.db, { name: "w1", pool: "p", codecs: { zstd: "z", lz4: "l" } })
  await heartbeat(one.db, { ...host, name: "h1", hostId: "x" })
  const asked = { dir: one.dir("new"), replaceLost: true }

  await expect(initPool(one.db, { ...asked, name: "p" })).rejects.toMatchObject({
    message: expect.stringContaining("w1"),
  })
  await expect(initHome(one.db, { ...asked, name: "h1" })).rejects.toMatchObject({
    message: expect.stringContaining("h1"),
  })
})

test("a host with instances keeps its DATA_DIR, until it is said that this is lost", async () => {
  await using one = await installation()
  const claim = async (dir: string): Promise<string> => claimHome(one.dir(dir), await knownHost(one.db, "h"))
  const hostId = await claim("disk")
  await heartbeat(one.db, { ...host, name: "h", hostId })
  await one.db
    .updateTable("hosts")
    .set({ heartbeat_at: new Date(0) })
    .execute()
  await snapshotIn(one, "p")
  await mkdir(one.dir("mount-point"))
  const asked = { dir: one.dir("mount-point"), name: "h" }

  await expect(claim("mount-point")).rejects.toMatchObject(refusal("host.json", hostId, "Mount"))
  await expect(initHome(one.db, { ...asked, replaceLost: false })).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("(1)"),
  })
  expect(await claim("disk")).toBe(hostId)
  await initHome(one.db, { ...asked, replaceLost: true })

  expect(await claim("mount-point")).not.toBe(hostId)
  await expect(claim("disk")).rejects.toMatchObject(refusal(hostId))
})

test("a host without instances takes any directory of its own", async () => {
  await using one = await installation()
  await heartbeat(one.db, { ...host, name: "h", hostId: "before" })

  await claimHome(one.dir("new"), await knownHost(one.db, "h"))

  await using other = await installation()
  const known = await knownHost(other.db, "h")
  await expect(claimHome(one.dir("new"), known)).rejects.toMatchObject(refusal(one.id, other.id))
})

test("a copy of DATA_DIR on another machine is refused while the first is up, under its name and under another", async () => {
  await using one = await installation()
  const first = { ...host, name: "h", hostId: "x" }
  await heartbeat(one.db, first)
  const copied = { code: "conflict", message: expect.stringMatching(/is a copy\..*remove host\.json/) }

  for (const name of ["h", "clone"]) {
    const copy = { ...first, name, bootId: "another" }
    await expect(heartbeat(one.db, copy)).rejects.toMatchObject(copied)
    // The first machine's next heartbeat decides.
    await expect(registerHost(one.db, copy, () => void heartbeat(one.db, first))).rejects.toMatchObject(
      copied,
    )
  }
  await heartbeat(one.db, first)
})

test("a machine that has booted again waits until the heartbeat from before is stale, and says so once", async () => {
  await using one = await installation()
  await heartbeat(one.db, { ...host, name: "h", hostId: "x" })
  const reasons: string[] = []
  const age = one.db.updateTable("hosts").set({ heartbeat_at: new Date(0) })

  await registerHost(one.db, { ...host, name: "h", hostId: "x", bootId: "next" }, (reason) => {
    reasons.push(reason)
    void age.execute()
  })

  expect(reasons).toEqual([expect.stringContaining("this machine before it booted")])
  expect(await one.db.selectFrom("hosts").select("boot_id").execute()).toEqual([{ boot_id: "next" }])
})

test("a name that another machine holds is refused without a wait", async () => {
  await using one = await installation()
  await heartbeat(one.db, { ...host, name: "h", hostId: "x" })
  const reasons: string[] = []

  const other = registerHost(one.db, { ...host, name: "h", hostId: "y" }, (reason) => reasons.push(reason))

  await expect(other).rejects.toMatchObject({ message: expect.stringContaining("set HOST_NAME") })
  expect(reasons).toEqual([])
})
