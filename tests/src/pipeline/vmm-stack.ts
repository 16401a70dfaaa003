import type { InstanceResource } from "@stillframe/domain/instance"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { serialLines, testStack, untilTrue, type TestStack } from "./test-stack.ts"
import { vzOnThisHost } from "./vz-on-this-host.ts"

// A captor is a process of its own, and inherits this.
process.env["NODE_OPTIONS"] = vzOnThisHost

export type Vmm = "cloud-hypervisor" | "firecracker" | "vz"

/** Versions that there are stand-ins of; a shim says none. */
export const fakeVersions = {
  "cloud-hypervisor": ["v53.0", "v48.0"],
  firecracker: ["1.16.1", "1.15.0"],
} as const

/** The stand-in of a hypervisor's program, in its latest version unless another is named. */
export function fakeOf(folder: string, name: Vmm, version?: string): Promise<string> {
  if (name === "vz") return fakeBinary(folder, "vz-shim")
  return fakeBinary(folder, name, version ?? fakeVersions[name][0])
}

/** A stack whose host has stand-ins of these hypervisors. */
export async function stackWith(...names: Vmm[]): Promise<TestStack> {
  await using opened = new AsyncDisposableStack()
  const stack = opened.use(await testStack())
  const found = names.map(async (name) => [name, { path: await fakeOf(stack.dataDir, name) }] as const)
  await stack.startCaptureWorker({ vmms: new Map(await Promise.all(found)) })
  await stack.startCompressionWorker()
  opened.move()
  return stack
}

/** A running heartbeat guest that has ticked. */
export async function launchOn(
  stack: TestStack,
  hypervisor: Vmm,
  name: string,
  launch: object = {},
): Promise<InstanceResource> {
  const instance = await stack.api.request<InstanceResource>("POST", "/instances", {
    name,
    hypervisor,
    launch: { image: "heartbeat", ...launch },
  })
  const dir = stack.generationDir(instance)
  await untilTrue(dir, async () => (await serialLines(dir)) >= 3)
  return instance
}
