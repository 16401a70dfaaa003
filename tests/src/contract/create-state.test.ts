import { writeFile } from "node:fs/promises"
import { createInstance } from "@stillframe/db/instances/instances"
import type { InstanceState } from "@stillframe/domain/instance"
import { afterAll, beforeAll, expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { serialLines, testStack, type TestStack } from "../pipeline/test-stack.ts"
import { captured, create, launchInto, stateOf } from "./contract-stack.ts"

let stack: TestStack
let vm: { id: string }
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  vm = await stack.launch("vm")
})
afterAll(() => stack[Symbol.asyncDispose]())

/** What a refusal says, to whoever reads it and to the client that would otherwise repeat the request. */
function refusal({ status, body, headers }: Reply): object {
  return { status, code: body.code, message: body.message, retry: headers.get("x-should-retry") }
}

function conflict(message: string): object {
  return { status: 409, code: "conflict", message: expect.stringContaining(message), retry: "false" }
}

test("case 20: an unknown instance is not found, and a prefix of two ids is ambiguous", async () => {
  const unknown = await create(stack, "nobody")
  expect([unknown.status, unknown.body]).toEqual([404, { code: "not_found", message: "resource not found" }])

  // Ids are random, so one is made to begin as another does.
  const twin = `${vm.id.slice(0, 20)}${vm.id.endsWith("zzzz") ? "aaaa" : "zzzz"}`
  const launch = { image: "heartbeat" }
  const made = { name: "twin", image: "heartbeat", hypervisor: "qemu", host: "h", vcpus: 1 } as const
  const { id } = await createInstance(stack.db, { ...made, launch, memoryMib: 64 })
  await stack.db.updateTable("instances").set({ id: twin }).where("id", "=", id).execute()
  const ambiguous = await create(stack, vm.id.slice(0, 20))
  expect([ambiguous.status, ambiguous.body]).toEqual([
    409,
    { code: "ambiguous", message: "multiple resources match, use full ID" },
  ])
  await stack.db.deleteFrom("instances").where("id", "=", twin).execute()
})

test("case 21: an instance is found by its id, its name and a unique prefix, and the snapshot names its full id", async () => {
  for (const key of [vm.id, "vm", vm.id.slice(0, 20)])
    expect((await captured(stack, key)).source_instance_id).toBe(vm.id)
})

test("case 22: a Standby snapshot of a Running instance leaves it running, as who it was", async () => {
  const before = (await stack.ask("GET", `/instances/${vm.id}`)).body

  await captured(stack, vm.id)

  expect((await stack.ask("GET", `/instances/${vm.id}`)).body).toEqual(before)
  expect(before).toMatchObject({ id: vm.id, name: "vm", state: "Running" })
  await untilTicks(stack.generationDir(vm), 3, await serialLines(stack.generationDir(vm)))
})

test("case 23: a Standby snapshot of a Standby instance leaves it in Standby, and of a Stopped one there is none", async () => {
  const asleep = await launchInto(stack, "asleep", "Standby")
  const stopped = await launchInto(stack, "stopped23", "Stopped")

  const snapshot = await captured(stack, asleep.id)

  expect(snapshot).toMatchObject({ kind: "Standby", source_instance_id: asleep.id })
  expect(snapshot.size_bytes).toBeGreaterThan(0)
  expect(await stateOf(stack, asleep.id)).toBe("Standby")
  const refused = await create(stack, stopped.id)
  expect(refusal(refused)).toEqual(
    conflict("standby snapshot requires source in Running or Standby, got Stopped"),
  )
})

test("case 24: a Stopped snapshot is made of a Stopped instance", async () => {
  const stopped = await launchInto(stack, "stopped24", "Stopped")

  const snapshot = await captured(stack, stopped.id, { kind: "Stopped" })

  expect(snapshot).toMatchObject({ kind: "Stopped", compression_state: "none", status: "ready" })
  expect(snapshot).not.toHaveProperty("compression")
  expect(await stateOf(stack, stopped.id)).toBe("Stopped")
})

test("case 24: a Stopped snapshot is made of no other instance, and none of one that is between states", async () => {
  const asleep = await launchInto(stack, "asleep24", "Standby")
  const passing = await stack.launch("passing")

  for (const { id, state } of [{ ...vm, state: "Running" }, asleep])
    expect(refusal(await create(stack, id, { kind: "Stopped" }))).toEqual(
      conflict(`stopped snapshot requires source in Stopped, got ${state}`),
    )
  for (const state of [
    "Initializing",
    "Paused",
    "Created",
    "Shutdown",
    "Unknown",
  ] satisfies InstanceState[]) {
    // Such states pass by, so the row is held in them.
    await stack.db.updateTable("instances").set({ state }).where("id", "=", passing.id).execute()
    for (const kind of ["Standby", "Stopped"])
      expect(refusal(await create(stack, passing.id, { kind }))).toEqual(conflict(`got ${state}`))
  }
  await stack.db.updateTable("instances").set({ state: "Running" }).where("id", "=", passing.id).execute()
  await stack.api.request("DELETE", `/instances/${passing.id}`)
})

test("case 25: a name is the instance's own, and free again when its snapshot is deleted", async () => {
  await stack.launch("other")
  const first = await captured(stack, "vm", { name: "nightly" })

  expect(refusal(await create(stack, "vm", { name: "nightly" }))).toEqual(conflict("already exists"))
  await captured(stack, "other", { name: "nightly" })
  await stack.ask("DELETE", `/snapshots/${first.id}`)
  await captured(stack, "vm", { name: "nightly" })
  await stack.api.request("DELETE", "/instances/other")
})

test("case 26: any number of snapshots have no name", async () => {
  const [first, second] = await Promise.all([captured(stack, "vm"), captured(stack, "vm")])

  expect(first?.id).not.toBe(second?.id)
})

test("case 27: an instance whose disks are only read can be captured", async () => {
  const path = `${stack.imagesDir}/readonly.raw`
  await writeFile(path, Buffer.alloc(1024 * 1024, 7))
  const reader = await stack.launch("reader", {
    image: "heartbeat",
    disks: [{ path, format: "raw", readonly: true }],
  })

  expect((await captured(stack, reader.id)).source_instance_id).toBe(reader.id)
  await stack.api.request("DELETE", "/instances/reader")
})

test("case 29: a captured snapshot has every required member in its type", async () => {
  const { status, body, headers } = await create(stack, "vm")

  expect([status, headers.get("content-type")]).toEqual([201, "application/json; charset=utf-8"])
  expect(headers.get("location")).toBe(`/snapshots/${body.id}`)
  expect(body).toMatchObject({
    id: expect.stringMatching(/^[a-z][a-z0-9]{23}$/),
    kind: "Standby",
    created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/),
    source_hypervisor: "qemu",
    source_instance_id: vm.id,
    source_instance_name: "vm",
  })
  expect(Number.isSafeInteger(body.size_bytes) && body.size_bytes > 0).toBe(true)
})

test("case 29: a create that does not wait is 202 with every required member, and can be read at once", async () => {
  const { status, body, headers } = await stack.ask("POST", "/instances/vm/snapshots", {
    body: { kind: "Standby" },
  })

  expect([status, headers.get("location")]).toEqual([202, `/snapshots/${body.id}`])
  expect(body).toEqual({
    id: expect.stringMatching(/^[a-z][a-z0-9]{23}$/),
    kind: "Standby",
    capture: "paused",
    source_instance_id: vm.id,
    source_instance_name: "vm",
    source_hypervisor: "qemu",
    created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    size_bytes: 0,
    compression_state: "none",
    status: "queued",
  })
  expect((await stack.ask("GET", `/snapshots/${body.id}`)).body.id).toBe(body.id)
})

test("case 30: without name and tags there are no such keys", async () => {
  const { text, body } = await create(stack, "vm", { tags: {} })

  for (const member of ["name", "tags", "compression", "compression_error"])
    expect(body).not.toHaveProperty(member)
  expect(text).not.toContain("null")
})
