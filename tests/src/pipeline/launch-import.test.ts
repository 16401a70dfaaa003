import { readdir, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { hostImages, storedNames } from "@stillframe/hypervisors/disks/image-store"
import { expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { testStack, type TestStack } from "./test-stack.ts"

/** Of a larger disk the zeros are not read. */
const readWholeMax = 4 * 2 ** 30 - 2 ** 20
/** About a minute of reading. */
const disksOfAMinute = 15
const more = 2 ** 62

async function launch(stack: TestStack, paths: string[], prefer: string): Promise<Reply> {
  const disks = paths.map((path) => ({ path, format: "raw" }))
  const body = { name: "vm", launch: { image: "heartbeat", memory_mib: 16, disks } }
  return await stack.ask("POST", "/instances", { body, headers: { prefer } })
}

/** Neither an instance, nor an image once a worker has swept its host. */
async function expectNothingLeft({ dataDir }: TestStack): Promise<void> {
  expect(await readdir(join(dataDir, "instances"))).toEqual([])
  await expect.poll(() => storedNames(hostImages(dataDir).dir)).toEqual([])
}

async function untilImporting(stack: TestStack, id: string): Promise<InstanceResource> {
  const look = () => stack.api.request<InstanceResource>("GET", `/instances/${id}`)
  await expect.poll(look, { timeout: 30_000 }).toHaveProperty("importing")
  return look()
}

test("a launch whose files the host has no room for is refused before anything is made", async () => {
  await using stack = await testStack()
  await stack.startCaptureWorker({ spaceFloorBytes: more })
  const path = join(stack.imagesDir, "disk.raw")
  await writeFile(path, Buffer.alloc(1024 ** 2, 7))

  const refused = await launch(stack, [path], "wait=30")

  expect(refused).toMatchObject({
    status: 409,
    body: { code: "insufficient_resources", message: expect.stringContaining("to import the files") },
  })
  expect(await storedNames(join(stack.dataDir, "instances"))).toEqual([])
  expect(await storedNames(hostImages(stack.dataDir).dir)).toEqual([])
})

test("a long import shows how far it is, starts again with the next worker, and ends with its instance", async () => {
  await using stack = await testStack()
  const paths = Array.from({ length: disksOfAMinute }, (_, index) =>
    join(stack.imagesDir, `large-${index}.raw`),
  )
  for (const path of paths) {
    await writeFile(path, "")
    await truncate(path, readWholeMax)
  }
  const first = await stack.startCaptureWorker()

  const { status, body } = await launch(stack, paths, "respond-async")
  const shown = await untilImporting(stack, body.id)

  expect([status, shown.state]).toEqual([202, "Initializing"])
  expect(shown.importing?.total_bytes).toBeGreaterThanOrEqual(disksOfAMinute * readWholeMax)
  expect(shown.importing?.bytes).toBeGreaterThan(0)
  expect(shown.importing?.seconds_left).toBeGreaterThan(0)

  await first[Symbol.asyncDispose]()
  await stack.db.updateTable("instances").set({ importing: null }).execute()
  const second = await stack.startCaptureWorker()
  await untilImporting(stack, body.id)

  expect(
    (await stack.ask("DELETE", `/instances/${body.id}`, { headers: { prefer: "wait=30" } })).status,
  ).toBe(204)
  await second[Symbol.asyncDispose]()
  await stack.startCaptureWorker()
  await expectNothingLeft(stack)
})
