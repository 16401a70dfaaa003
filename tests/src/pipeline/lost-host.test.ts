import { clockPlus } from "@stillframe/db/client"
import type { InstanceResource } from "@stillframe/domain/instance"
import { findQemu } from "@stillframe/hypervisors/process/find-qemu"
import { expect, test } from "vitest"
import { testStack, type TestStack } from "./test-stack.ts"

/** As if the worker's last heartbeat were a minute ago. */
async function lose(stack: TestStack, worker: AsyncDisposable): Promise<void> {
  await worker[Symbol.asyncDispose]()
  await stack.db
    .updateTable("hosts")
    .set({ heartbeat_at: clockPlus(-60_000) })
    .execute()
}

test("what was asked of a lost host is done when it is back, and the VM of a forgotten one runs on", async () => {
  await using stack = await testStack()
  const processOf = ({ id }: InstanceResource) => findQemu(`stillframe-${stack.clusterId}-${id}`)
  const first = await stack.startCaptureWorker()
  const deleted = await stack.launch("deleted")
  const forgotten = await stack.launch("forgotten")

  await lose(stack, first)
  const reply = await stack.ask("DELETE", "/instances/deleted")
  expect([reply.status, reply.body.state]).toEqual([202, "Unknown"])
  expect(await processOf(deleted)).toBeDefined()

  const second = await stack.startCaptureWorker()
  await stack.until(async () => (await stack.ask("GET", "/instances/deleted")).status === 404 || undefined)
  expect(await processOf(deleted)).toBe(undefined)
  expect((await stack.ask("GET", "/instances/forgotten")).body.state).toBe("Running")

  await lose(stack, second)
  expect((await stack.ask("DELETE", `/hosts/${forgotten.host}?confirm=1`)).status).toBe(200)
  const vm = await processOf(forgotten)
  await stack.startCaptureWorker()

  const problem = { where: `host ${forgotten.host}`, code: "orphaned_instances" }
  const problems = async () => (await stack.ask("GET", "/ready")).body.problems
  await expect
    .poll(problems, { timeout: 20_000 })
    .toContainEqual({ ...problem, message: expect.stringContaining(forgotten.id) })
  expect(vm).toBeDefined()
  expect(await processOf(forgotten)).toEqual(vm)
})
