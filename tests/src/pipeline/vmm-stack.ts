import { join } from "node:path"
import { pathToFileURL } from "node:url"
import type { Hypervisor, InstanceResource } from "@stillframe/domain/instance"
import type { Vmm as Adapter } from "@stillframe/hypervisors/file-vmm/vmm"
import { vmms } from "@stillframe/hypervisors/vmms"
import { vzOn } from "@stillframe/hypervisors/vz/vmm"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { afterAll, vi } from "vitest"
import { mac } from "../hypervisors/mac.ts"
import { serialLines, testStack, untilTrue, type TestStack } from "./test-stack.ts"

/** `NODE_OPTIONS` of a process for which this host is a Mac. */
export const onMacOptions = `--import ${pathToFileURL(join(import.meta.dirname, "vz-on-this-host.ts")).href}`

/** For the file that says so this host is a Mac, where the stand-in of vz's shim runs. */
export function onAMac(): void {
  const adapters = vmms as Map<Hypervisor, () => Promise<Adapter>>
  const own = vmms.get("vz")
  adapters.set("vz", () => Promise.resolve(vzOn({ host: mac })))
  // A captor is a process of its own, and inherits this.
  vi.stubEnv("NODE_OPTIONS", onMacOptions)
  afterAll(() => {
    vi.unstubAllEnvs()
    if (own !== undefined) adapters.set("vz", own)
  })
}

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
