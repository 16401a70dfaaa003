import { mkdir, rename, rmdir } from "node:fs/promises"
import { join } from "node:path"
import type { EventEnvelope } from "@stillframe/domain/events"
import { homePlace, readHostId } from "@stillframe/storage/places/home"
import { expect, test } from "vitest"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { act, processOf } from "./instance-acts.ts"
import { testStack } from "./test-stack.ts"

test("a VM whose directory is away is not gone: it stays Running, and its end is recorded when it has one", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker()
  const vm = await stack.launch("vm")
  const away = `${stack.generationDir(vm)}.away`
  await worker[Symbol.asyncDispose]()
  const state = async (): Promise<string> => (await stack.ask("GET", "/instances/vm")).body.state

  await rename(stack.generationDir(vm), away)
  const next = await stack.startCaptureWorker()
  // It has looked for the VM before it has ended.
  await next[Symbol.asyncDispose]()
  expect(await state()).toBe("Running")

  await rename(away, stack.generationDir(vm))
  await stack.startCaptureWorker()
  await untilTicks(stack.generationDir(vm), 3)
  const process_ = await processOf(stack, vm)
  process.kill(process_?.pid ?? 0, "SIGKILL")
  const told = await stack.until(async () => {
    const events = await stack.api.request<EventEnvelope[]>("GET", `/events?instance_id=${vm.id}`)
    const stops = events.filter(({ data }) => "state" in data && data.state === "Stopped")
    return stops.length > 0 ? stops : undefined
  })
  expect(told).toHaveLength(1)
  expect(await state()).toBe("Stopped")
})

test("a host is not started on another DATA_DIR than that of its instances", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker()
  await stack.launch("vm")
  await worker[Symbol.asyncDispose]()
  const mountPoint = join(stack.dataDir, "mount-point")
  await mkdir(mountPoint)

  const started = stack.startCaptureWorker({ dataDir: mountPoint })

  await expect(started).rejects.toMatchObject({
    code: "storage_unavailable",
    message: expect.stringMatching(/has no host\.json.*Mount/),
  })
  expect((await stack.ask("GET", "/instances/vm")).body.state).toBe("Running")
})

test("while DATA_DIR is away work on its instances waits, and those who wait for an answer are told", async () => {
  await using stack = await testStack()
  const storageDir = `${stack.dataDir}-pool`
  await stack.startCaptureWorker({ storageDir })
  const vm = await stack.launch("vm")
  await act(stack, vm, "stop")
  const home = homePlace(stack.dataDir, (await readHostId(stack.dataDir)) ?? "")
  await rename(stack.dataDir, `${stack.dataDir}.away`)
  await mkdir(stack.dataDir)
  await expect(home.identify()).rejects.toMatchObject({ code: "storage_unavailable" })

  const start = await stack.ask("POST", `/instances/${vm.id}/start`, { body: {} })
  const removal = await stack.ask("DELETE", `/instances/${vm.id}`, { headers: { prefer: "respond-async" } })

  expect([start.status, start.body.code]).toEqual([503, "storage_unavailable"])
  const waits = stack.db.selectFrom("operations").select("attempt").where("kind", "=", "delete")
  await expect
    .poll(() => waits.where("wake", ">", 0).where("state", "=", "queued").execute(), { timeout: 20_000 })
    .toEqual([{ attempt: 0 }])
  await rmdir(stack.dataDir)
  await rename(`${stack.dataDir}.away`, stack.dataDir)
  expect(removal.status).toBeLessThan(300)
  await stack.until(async () => ((await stack.ask("GET", "/instances/vm")).status === 404 ? true : undefined))
})
