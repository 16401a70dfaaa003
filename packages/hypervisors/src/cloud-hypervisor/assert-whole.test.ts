import { mkdtemp, rm, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { assertWhole } from "./assert-whole.ts"

const mib = 1024 ** 2

async function saved(config: object, lengths: number[] | undefined, memoryBytes?: number) {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-whole-"))
  const ranges = { memory_ranges: { data: lengths?.map((length) => ({ gpa: 0, length })) } }
  const manager = { "memory-manager": { snapshot_data: { state: JSON.stringify(ranges) } } }
  await writeFile(join(dir, "config.json"), JSON.stringify(config))
  await writeFile(join(dir, "state.json"), JSON.stringify({ snapshots: lengths && manager }))
  if (memoryBytes !== undefined) {
    await writeFile(join(dir, "memory-ranges"), "")
    await truncate(join(dir, "memory-ranges"), memoryBytes)
  }
  return { dir, [Symbol.asyncDispose]: async () => await rm(dir, { recursive: true }) }
}

test("memory has the bytes of all the ranges that were saved", async () => {
  await using place = await saved({ memory: { size: 64 * mib } }, [48 * mib, 16 * mib], 64 * mib)

  await assertWhole(place.dir)

  await truncate(join(place.dir, "memory-ranges"), 48 * mib)
  await expect(assertWhole(place.dir)).rejects.toThrow(
    /memory-ranges has 50331648 bytes where its VM has 67108864/,
  )
})

test("without ranges it has what was configured, zones included", async () => {
  const config = { memory: { size: 0, zones: [{ size: 32 * mib }, { size: 16 * mib }] } }
  await using place = await saved(config, undefined, 48 * mib)
  await using shorter = await saved(config, undefined, 32 * mib)

  await assertWhole(place.dir)
  await expect(assertWhole(shorter.dir)).rejects.toThrow(/33554432 bytes where its VM has 50331648/)
})

test("there may be no memory only where all of it lies in files of its own", async () => {
  const zones = [{ size: 32 * mib, file: "/zones/a" }]
  await using inFiles = await saved({ memory: { size: 0, zones } }, undefined)
  await using missing = await saved({ memory: { size: 64 * mib } }, [64 * mib])

  await assertWhole(inFiles.dir)
  await expect(assertWhole(missing.dir)).rejects.toThrow(/memory-ranges has no bytes/)
})

test("a file that is missing or cut is named", async () => {
  await using place = await saved({ memory: { size: mib } }, [mib], mib)

  await writeFile(join(place.dir, "state.json"), '{"snapshots": {')
  await expect(assertWhole(place.dir)).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("state.json is cut short"),
  })
  await rm(join(place.dir, "config.json"))
  await expect(assertWhole(place.dir)).rejects.toThrow("config.json was not written")
})
