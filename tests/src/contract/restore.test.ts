import { afterAll, beforeAll, expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { firstGap, ticks, untilTicks } from "../hypervisors/test-vm.ts"
import { diskHolds, withDisk, writeToDisk } from "../pipeline/instance-acts.ts"
import { serial, serialLines, testStack, type TestStack } from "../pipeline/test-stack.ts"
import { captured, lifeDir, move, stateOf } from "./contract-stack.ts"

let stack: TestStack
let vm: { id: string; standby: string }
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  const { id } = await stack.launch("vm")
  const standby = await captured(stack, id, { name: "standby" })
  vm = { id, standby: standby.id }
})
afterAll(() => stack[Symbol.asyncDispose]())

function restore(instance: string, snapshot: string, body?: unknown): Promise<Reply> {
  return stack.ask("POST", `/instances/${instance}/snapshots/${snapshot}/restore`, { body })
}

test("case 50: a Running instance is not restored, which is invalid_state and nothing to repeat", async () => {
  const { status, body, headers } = await restore(vm.id, vm.standby, {})

  expect([status, body.code, headers.get("x-should-retry")]).toEqual([409, "invalid_state", "false"])
  expect(await stateOf(stack, vm.id)).toBe("Running")
})

test("case 51: a snapshot of another instance is refused, an unknown one or an unknown instance not found", async () => {
  const other = await stack.launch("other")
  await move(stack, other.id, "stop")

  const foreign = await restore(other.id, vm.standby, {})
  expect([foreign.status, foreign.body.code]).toEqual([400, "invalid_request"])
  expect(foreign.body.message).toContain("belongs to instance")
  for (const unknown of ["a".repeat(24), "x", vm.standby.slice(0, 12), "standby"]) {
    const { status, body } = await restore(other.id, unknown, {})
    expect([status, body]).toEqual([404, { code: "not_found", message: "instance or snapshot not found" }])
  }
  expect((await restore("nobody", vm.standby, {})).body).toEqual({
    code: "not_found",
    message: "resource not found",
  })
})

test("case 49: a restore has a body, and an empty object puts a Stopped instance back to running", async () => {
  await move(stack, vm.id, "stop")

  const none = await restore(vm.id, vm.standby)
  expect([none.status, none.body.code]).toEqual([400, "Bad Request"])
  const { status, body } = await restore(vm.id, vm.standby, {})

  expect([status, body.id, body.name, body.state]).toEqual([200, vm.id, "vm", "Running"])
  expect(body).toHaveProperty("expires_at", null)
})

test("case 52: a Standby snapshot is restored into any of the three states", async () => {
  for (const target of ["Stopped", "Standby", "Running"]) {
    if ((await stateOf(stack, vm.id)) === "Running") await move(stack, vm.id, "stop")
    const { status, body } = await restore(vm.id, vm.standby, { target_state: target })

    expect([status, body.state], `for ${target}`).toEqual([200, target])
    expect(await stateOf(stack, vm.id)).toBe(target)
    expect(body.has_snapshot).toBe(target === "Standby")
    // It has the times of this life alone, and the one before has not ended.
    expect(["started_at" in body, "stopped_at" in body]).toEqual([target === "Running", false])
  }
})

test("case 52: what is restored into Standby goes on where the snapshot stood still", async () => {
  await move(stack, vm.id, "stop")
  await restore(vm.id, vm.standby, { target_state: "Standby" })

  expect((await move(stack, vm.id, "restore")).state).toBe("Running")

  const dir = await lifeDir(stack, vm.id)
  await untilTicks(dir, 3)
  const printed = await serial(dir)
  expect(firstGap(printed.slice(printed.indexOf("\n") + 1))).toBeUndefined()
  // A guest that had been started anew would count from its first tick.
  expect(ticks(printed)[1]?.tick).toBeGreaterThan(2)
})

test("case 52: a Stopped snapshot has no memory to be put into Standby, and is Stopped unless asked to run", async () => {
  await move(stack, vm.id, "stop")
  const { id } = await captured(stack, vm.id, { kind: "Stopped" })

  const standby = await restore(vm.id, id, { target_state: "Standby" })
  expect([standby.status, standby.body.code]).toEqual([400, "invalid_request"])
  const plain = await restore(vm.id, id, {})
  expect([plain.status, plain.body.state]).toEqual([200, "Stopped"])
  const running = await restore(vm.id, id, { target_state: "Running" })
  expect([running.status, running.body.state]).toEqual([200, "Running"])
  await untilTicks(await lifeDir(stack, vm.id), 3)
})

test("case 53: another hypervisor is only for Stopped snapshots, and only one that can take them", async () => {
  await move(stack, vm.id, "stop")
  const stopped = await captured(stack, vm.id, { kind: "Stopped" })

  for (const hypervisor of ["qemu", "firecracker"]) {
    const { status, body } = await restore(vm.id, vm.standby, { target_hypervisor: hypervisor })
    expect([status, body.code]).toEqual([400, "invalid_request"])
    expect(body.message).toContain("target_hypervisor is only allowed for stopped snapshots")
  }
  const same = await restore(vm.id, stopped.id, { target_hypervisor: "qemu" })
  expect([same.status, same.body.hypervisor]).toEqual([200, "qemu"])
  const foreign = await restore(vm.id, stopped.id, { target_hypervisor: "vz" })
  expect([foreign.status, foreign.body.code]).toEqual([400, "invalid_request"])
  expect(foreign.body.message).toContain('unsupported target hypervisor "vz"')
})

test("case 54: a restored instance is who it was, and its memory and its disk are what they were", async () => {
  const source = await withDisk(stack, "with-disk")
  const dir = stack.generationDir(source)
  const snapshot = await captured(stack, source.id)
  const printedThen = await serialLines(dir)
  await untilTicks(dir, 20, printedThen)
  const [first] = ticks(await serial(dir))
  await move(stack, source.id, "stop")
  await writeToDisk(stack, dir, 2)
  expect(await diskHolds(stack, dir)).toEqual([2])

  const { status, body } = await restore(source.id, snapshot.id, {})

  expect([status, body.id, body.name, body.created_at]).toEqual([
    200,
    source.id,
    source.name,
    source.created_at,
  ])
  const restored = await lifeDir(stack, source.id)
  await untilTicks(restored, 3)
  const [, second] = ticks(await serial(restored))
  // The capture's answer may come some lines after the capture; the twenty lines written since are not among
  // them.
  expect(second?.tick).toBeLessThan(printedThen + 3)
  expect(second?.sum).toBe(first?.sum)
  await move(stack, source.id, "stop")
  expect(await diskHolds(stack, restored)).toEqual([7])
})

test("case 55: a target that is no state to be put into is a schema error", async () => {
  const { status, body } = await restore(vm.id, vm.standby, { target_state: "Paused" })

  expect([status, body.code]).toEqual([400, "Bad Request"])
})

test("a restore that is refused leaves the instance as it was", async () => {
  const before = (await stack.ask("GET", "/instances/with-disk")).body

  await restore("with-disk", vm.standby, { target_state: "Stopped" })

  expect((await stack.ask("GET", "/instances/with-disk")).body).toEqual(before)
})
