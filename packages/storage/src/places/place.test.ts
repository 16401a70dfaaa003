import { mkdtemp, rename, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { expect, test } from "vitest"
import { makePool } from "./claim-pool.ts"
import { poolPlace, type Place } from "./place.ts"

async function pool(): Promise<{ place: Place; dir: string } & AsyncDisposable> {
  const root = await mkdtemp(join(tmpdir(), "stillframe-place-"))
  const dir = join(root, "pool")
  const place = poolPlace(dir, { id: await makePool(dir, "i"), installation: "i" })
  return { place, dir, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) }
}

const unavailable = { code: "storage_unavailable" }

test("a pool is known while its directory is there, and again when it is back", async () => {
  await using made = await pool()
  await made.place.check()

  await rename(made.dir, `${made.dir}.away`)
  await expect(made.place.identify()).rejects.toMatchObject(unavailable)
  await rename(`${made.dir}.away`, made.dir)

  await made.place.check()
})

test("another pool in its place, or one without its snapshots, is not it", async () => {
  await using made = await pool()
  await rm(join(made.dir, "snapshots"), { recursive: true })
  await expect(made.place.identify()).rejects.toMatchObject(unavailable)

  await rm(made.dir, { recursive: true })
  await makePool(made.dir, "i")
  await expect(made.place.identify()).rejects.toMatchObject(unavailable)
  await writeFile(join(made.dir, "pool.json"), "{}")
  await expect(made.place.identify()).rejects.toMatchObject(unavailable)
})

test("a failure counts only when the pool is still there after it", async () => {
  await using made = await pool()
  const failure = new StillframeError("corrupted", "memory is missing")

  await expect(made.place.during(() => Promise.reject(failure))).rejects.toBe(failure)
  const lost = made.place.during(async () => {
    await rename(made.dir, `${made.dir}.away`)
    throw failure
  })

  await expect(lost).rejects.toMatchObject({ ...unavailable, cause: failure })
})

test("nothing is begun in a pool that is away", async () => {
  await using made = await pool()
  await rename(made.dir, `${made.dir}.away`)
  let begun = false

  const work = made.place.during(async () => {
    begun = true
  })

  await expect(work).rejects.toMatchObject(unavailable)
  expect(begun).toBe(false)
})
