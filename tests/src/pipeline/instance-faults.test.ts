import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, beforeAll, expect, test } from "vitest"
import { firstGap, untilTicks } from "../hypervisors/test-vm.ts"
import { act, expectGoesOn, processOf } from "./instance-acts.ts"
import {
  deleteInstances,
  expireLeases,
  serial,
  serialLines,
  testStack,
  untilTrue,
  type TestStack,
} from "./test-stack.ts"

let stack: TestStack
beforeAll(async () => {
  stack = await testStack()
})
afterAll(() => stack[Symbol.asyncDispose]())

test("a captor killed on the way into Standby: the VM runs on, and the next try puts it away", async () => {
  await using _worker = await stack.startCaptureWorker()
  const vm = await stack.launch("captor-killed", { image: "heartbeat", memory_mib: 3_072 })
  const home = join(stack.dataDir, "instances", vm.id)

  const standby = act(stack, vm, "standby")
  await untilTrue(home, async () => (await readdir(home)).includes("pause.json"))
  const record = JSON.parse(await readFile(join(home, "pause.json"), "utf8")) as {
    captor: { pid: number }
  }
  const printed = await serialLines(stack.generationDir(vm))
  process.kill(record.captor.pid, "SIGKILL")
  await untilTicks(stack.generationDir(vm), 1, printed)

  expect((await standby).state).toBe("Standby")
  const earlier = await serial(stack.generationDir(vm))
  expect(firstGap(earlier)).toBeUndefined()
  await act(stack, vm, "restore")
  await expectGoesOn(stack.generationDir(vm, 2), earlier)
  await deleteInstances(stack)
})

test("a worker killed when the VM has ended: the next one finds the image, and the instance is in Standby", async () => {
  const worker = await stack.spawn("capture-worker")
  const vm = await stack.launch("ended", { image: "heartbeat", memory_mib: 1_024 })
  const home = join(stack.dataDir, "instances", vm.id)

  await stack.api.request("POST", `/instances/${vm.id}/standby`, {}, { prefer: "respond-async" })
  await untilTrue(home, async () => (await readdir(home)).includes("pause.json"))
  worker.child.kill("SIGSTOP")
  await untilTrue(home, async () => (await processOf(stack, vm)) === undefined)
  worker.child.kill("SIGKILL")
  await worker.ended
  const earlier = await serial(stack.generationDir(vm))
  await expireLeases(stack)
  await using _next = await stack.startCaptureWorker()

  const path = `/instances/${vm.id}/wait?state=Standby&timeout=30s`
  expect(await stack.api.request("GET", path)).toEqual({ state: "Standby", timed_out: false })
  await act(stack, vm, "restore")
  await expectGoesOn(stack.generationDir(vm, 2), earlier)
  await deleteInstances(stack)
})

test("a worker killed while it restores: the instance is as it was, and nothing of the try is left", async () => {
  const worker = await stack.spawn("capture-worker")
  const vm = await stack.launch("restoring", { image: "heartbeat", memory_mib: 1_024 })
  await act(stack, vm, "standby")
  const earlier = await serial(stack.generationDir(vm))
  const home = join(stack.dataDir, "instances", vm.id)

  await stack.api.request("POST", `/instances/${vm.id}/restore`, {}, { prefer: "respond-async" })
  await untilTrue(home, async () => (await readdir(home)).includes("2"))
  worker.child.kill("SIGKILL")
  await worker.ended
  await expireLeases(stack)
  await using _next = await stack.startCaptureWorker()
  const failed = await stack.until(async () => {
    const instance = await stack.api.request<InstanceResource>("GET", `/instances/${vm.id}`)
    return instance.state_error === undefined ? undefined : instance
  })

  expect(failed).toMatchObject({ state: "Standby", state_error: expect.stringContaining("try again") })
  expect((await readdir(home)).toSorted()).toEqual(["1", "standby"])
  expect(await processOf(stack, vm)).toBeUndefined()
  await act(stack, vm, "restore")
  await expectGoesOn(stack.generationDir(vm, 2), earlier)
  await deleteInstances(stack)
})
