import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { afterAll, beforeAll, expect, test } from "vitest"
import { testStack, type TestStack } from "../pipeline/test-stack.ts"
import { captured } from "./contract-stack.ts"

// The server's own default is on, with another algorithm than the contract's, so that it shows where it comes
// from.
let stack: TestStack
beforeAll(async () => {
  stack = await testStack({ api: { compression: { enabled: true, algorithm: "lz4" } } })
  await stack.startCaptureWorker()
  await stack.startCompressionWorker()
  await stack.launch("vm")
  await stack.api.request<InstanceResource>("POST", "/instances", {
    name: "with-policy",
    image: "heartbeat",
    snapshot_policy: { compression: { enabled: true, level: 7 } },
  })
})
afterAll(() => stack[Symbol.asyncDispose]())

/** Captured, as it was answered, and again when its compression is final. */
async function both(instance: string, body: object = {}): Promise<[SnapshotResource, SnapshotResource]> {
  const snapshot = await captured(stack, instance, body)
  return [snapshot, await stack.settled(snapshot.id)]
}

test("case 31: compression that is only switched on is zstd at level 1", async () => {
  const [answered, settled] = await both("vm", { compression: { enabled: true } })

  expect(answered.compression).toEqual({ enabled: true, algorithm: "zstd", level: 1 })
  expect(["compressing", "compressed"]).toContain(answered.compression_state)
  expect([settled.compression_state, settled.compression]).toEqual(["compressed", answered.compression])
})

test("case 32: lz4 without a level is level 0", async () => {
  const [answered] = await both("vm", { compression: { enabled: true, algorithm: "lz4" } })

  expect(answered.compression).toEqual({ enabled: true, algorithm: "lz4", level: 0 })
})

test("case 33: the instance's policy counts where the request says nothing, and a request's off counts for more than all", async () => {
  const [byPolicy] = await both("with-policy")
  expect(["compressing", "compressed"]).toContain(byPolicy.compression_state)
  expect(byPolicy.compression).toEqual({ enabled: true, algorithm: "zstd", level: 7 })

  for (const instance of ["with-policy", "vm"]) {
    const [, off] = await both(instance, { compression: { enabled: false } })
    expect(off.compression_state).toBe("none")
    expect(off).not.toHaveProperty("compression")
  }
})

test("case 34: the server's default counts where neither request nor instance says anything", async () => {
  const [answered, settled] = await both("vm")

  expect(answered.compression).toEqual({ enabled: true, algorithm: "lz4", level: 0 })
  expect(settled.compression_state).toBe("compressed")
})
