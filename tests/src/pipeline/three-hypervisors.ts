import { chmod, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Hypervisor, InstanceResource } from "@stillframe/domain/instance"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { testStack, type TestStack } from "./test-stack.ts"
import { fakeOf } from "./vmm-stack.ts"

export const hypervisors = ["qemu", "cloud-hypervisor", "firecracker"] as const

/** A host of all three, whose programs every user can execute. */
export async function stackOfAll(): Promise<TestStack> {
  await using opened = new AsyncDisposableStack()
  const programs = await mkdtemp(join(tmpdir(), "stillframe-programs-"))
  await chmod(programs, 0o711)
  opened.defer(() => rm(programs, { recursive: true }))
  const stack = opened.use(await testStack())
  const found = (["cloud-hypervisor", "firecracker"] as const).map(
    async (name) => [name, { path: await fakeOf(programs, name) }] as const,
  )
  await stack.startCaptureWorker({ vmms: new Map(await Promise.all(found)) })
  const resources = opened.move()
  return { ...stack, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

/** A running heartbeat guest that has ticked. */
export async function launchOn(
  stack: TestStack,
  hypervisor: Hypervisor,
  name: string,
): Promise<InstanceResource> {
  const launch = { image: "heartbeat" }
  const instance = await stack.api.request<InstanceResource>("POST", "/instances", {
    name,
    hypervisor,
    launch,
  })
  await untilTicks(stack.generationDir(instance), 3)
  return instance
}
