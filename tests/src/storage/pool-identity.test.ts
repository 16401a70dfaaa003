import { mkdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { poolRegister } from "@stillframe/db/hosts/pools"
import { createOperation } from "@stillframe/db/operations/operations"
import { startDelete } from "@stillframe/db/snapshots/snapshots"
import { compressQueue } from "@stillframe/domain/queues"
import type { KnownPool } from "@stillframe/storage/places/known-pool"
import { expect, test } from "vitest"
import { installation, oldDirectory, refusal, snapshotIn } from "./installation.ts"

async function poolJson(dir: string): Promise<unknown> {
  return JSON.parse(await readFile(join(dir, "pool.json"), "utf8"))
}

test("the first start of a new installation makes the pool, and every later one finds it", async () => {
  await using one = await installation()
  const dir = one.dir("new")

  const id = await one.claim("p", dir)

  expect(await poolJson(dir)).toEqual({ id, installation: one.id })
  expect(await one.claim("p", dir)).toBe(id)
})

test("workers that start at the same moment agree on one id", async () => {
  await using one = await installation()

  const ids = await Promise.all(Array.from({ length: 5 }, () => one.claim("p", one.dir("new"))))

  expect(new Set(ids).size).toBe(1)
})

test("a directory that does not answer holds up no other pool, and is judged by the facts of when it does", async () => {
  await using one = await installation()
  const answered = Promise.withResolvers<void>()
  const asked = Promise.withResolvers<void>()
  const facts: KnownPool[] = []
  const late = poolRegister(one.db, { pool: "p", host: "h" }).settle(async (known) => {
    facts.push(known)
    asked.resolve()
    await answered.promise
    return { id: known.id ?? "late", taken: [] }
  })
  await asked.promise

  await one.claim("q", one.dir("q"))
  const id = await one.claim("p", one.dir("p"))
  answered.resolve()

  expect(await late).toBe(id)
  expect(facts.map((known) => known.id)).toEqual([undefined, id])
})

test("a directory without pool.json is refused once the pool has an id: it may be where a disk is to be mounted", async () => {
  await using one = await installation()
  const id = await one.claim("p", one.dir("disk"))
  await mkdir(one.dir("mount-point"))

  for (const dir of ["mount-point", "absent"])
    await expect(one.claim("p", one.dir(dir))).rejects.toMatchObject(
      refusal("has no pool.json", id, "Mount", "storage init"),
    )
})

test("a second directory under a pool's name is refused, and the answer is another name", async () => {
  await using one = await installation()
  const id = await one.claim("p", one.dir("a"))
  await one.claim("q", one.dir("b"))
  await oldDirectory(one, one.dir("c"))

  await expect(one.claim("p", one.dir("b"))).rejects.toMatchObject(refusal('pool "q"', id, "STORAGE_POOL=q"))
  await expect(one.claim("p", one.dir("c"))).rejects.toMatchObject(refusal(id, "STORAGE_POOL"))
})

test("a directory under a second name is refused, and the answer is the first", async () => {
  await using one = await installation()
  await one.claim("p", one.dir("a"))

  await expect(one.claim("q", one.dir("a"))).rejects.toMatchObject(refusal('pool "p"', "STORAGE_POOL=p"))
})

test("a directory of another installation is refused, naming both", async () => {
  await using one = await installation()
  await using other = await installation()
  await other.claim("p", other.dir("new"))
  await oldDirectory(other, other.dir("old"))

  for (const dir of ["new", "old"])
    await expect(one.claim("p", other.dir(dir))).rejects.toMatchObject(refusal(other.id, one.id))
})

test("a directory of an older version is taken in when one of its snapshots is there, and not when none is", async () => {
  await using one = await installation()
  const [pool, mountPoint] = [one.dir("pool"), one.dir("mount-point")]
  await oldDirectory(one, pool)
  await oldDirectory(one, mountPoint)
  await snapshotIn(one, "p", pool)
  await snapshotIn(one, "p")

  await expect(one.claim("p", mountPoint)).rejects.toMatchObject(refusal("holds none", "Mount"))
  await expect(one.claim("p", one.dir("absent"))).rejects.toMatchObject(refusal("holds none", "Mount"))

  expect(await poolJson(pool).catch(() => "none")).toBe("none")
  const id = await one.claim("p", pool)
  expect(await poolJson(pool)).toEqual({ id, installation: one.id })
})

test("an empty directory is not taken for a pool from which files are still to be removed", async () => {
  await using one = await installation()
  await oldDirectory(one, one.dir("pool"))
  const id = await snapshotIn(one, "p", one.dir("pool"))
  await startDelete(one.db, id)

  await expect(one.claim("p", one.dir("mount-point"))).rejects.toMatchObject(
    refusal("to be removed", "Mount"),
  )
  await one.claim("p", one.dir("pool"))
})

test("a directory that an older version used under two names stays usable under both", async () => {
  await using one = await installation()
  const dir = one.dir("shared")
  await oldDirectory(one, dir)
  await snapshotIn(one, "p", dir)
  await snapshotIn(one, "q", dir)

  expect(await one.claim("q", dir)).toBe(await one.claim("p", dir))
})

test("two machines that an older version let use one name: what lies in the second's directory moves to its new name", async () => {
  await using one = await installation()
  const [first, second] = [one.dir("first"), one.dir("second")]
  for (const dir of [first, second]) await oldDirectory(one, dir)
  const kept = await snapshotIn(one, "p", first)
  const moved = await snapshotIn(one, "p", second)
  await createOperation(one.db, { kind: "verify", queue: compressQueue("p"), snapshotId: moved })
  await one.claim("p", first)

  await expect(one.claim("p", second)).rejects.toMatchObject(refusal("set STORAGE_POOL"))
  await one.claim("q", second)

  const rows = await one.db.selectFrom("snapshots").select(["id", "pool"]).execute()
  expect(Object.fromEntries(rows.map(({ id, pool }) => [id, pool]))).toEqual({ [kept]: "p", [moved]: "q" })
  const work = one.db.selectFrom("operations").select("queue").where("kind", "=", "verify")
  expect(await work.execute()).toEqual([{ queue: compressQueue("q") }])
})

test("snapshots without a word of whose they are, are not taken in", async () => {
  await using one = await installation()
  await mkdir(join(one.dir("pool"), "snapshots", "whose"), { recursive: true })

  await expect(one.claim("p", one.dir("pool"))).rejects.toMatchObject(refusal("whose", one.id))
})

test("a worker that died between the file and the row leaves a pool that the next one takes over", async () => {
  await using one = await installation()
  const dir = one.dir("new")
  const id = await one.claim("p", dir)
  await one.db.updateTable("pools").set({ id: null }).execute()

  expect(await one.claim("p", dir)).toBe(id)
  expect(await one.db.selectFrom("pools").selectAll().execute()).toEqual([{ name: "p", id }])
})

test("a pool.json that can't be understood is no reason to make another", async () => {
  await using one = await installation()
  const dir = one.dir("pool")
  await one.claim("p", dir)
  await writeFile(join(dir, "pool.json"), "")

  await expect(one.claim("p", dir)).rejects.toMatchObject(refusal("pool.json is damaged"))
  expect(await readFile(join(dir, "pool.json"), "utf8")).toBe("")
})
