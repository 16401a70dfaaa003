import { readdir, readFile, readlink, stat } from "node:fs/promises"
import { join } from "node:path"
import type { CaptureWorkerConfig } from "@stillframe/capture-worker/config"
import type { PauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { expect } from "vitest"
import type { Stranger } from "../hypervisors/stranger.ts"
import {
  firstGap,
  ground,
  heartbeat,
  startHeartbeat,
  ticks,
  untilTicks,
  type Ground,
} from "../hypervisors/test-vm.ts"
import { serial, testStack, untilTrue, type TestStack } from "./test-stack.ts"

/** How a worker may use what lies on the test's ground. */
export function settingsFor({ root }: Pick<Ground, "root">, { binary }: Pick<Stranger, "binary">): Settings {
  return { hostPaths: [root, join(heartbeat, "..")], attachBinaries: [binary] }
}

type Settings = Pick<CaptureWorkerConfig, "hostPaths" | "attachBinaries">

/** A system for all tests of a file, whose worker may attach to what lies on the ground of each. */
export async function stackForAllGrounds(): Promise<TestStack> {
  await using place = await ground()
  const { process } = await startHeartbeat(place)
  return stackFor({ root: join(place.root, "..") }, { binary: await readlink(`/proc/${process.pid}/exe`) })
}

/** A system whose worker may attach to the stranger. */
async function stackFor(
  ground: Pick<Ground, "root">,
  stranger: Pick<Stranger, "binary">,
): Promise<TestStack> {
  const stack = await testStack()
  await stack.startCaptureWorker(settingsFor(ground, stranger))
  return stack
}

/** The same for a worker that is a process of its own. */
export function environmentFor(ground: Ground, stranger: Stranger): Record<string, string> {
  const { hostPaths, attachBinaries } = settingsFor(ground, stranger)
  return { HOST_PATHS: hostPaths.join(":"), ATTACH_BINARIES: attachBinaries.join(":") }
}

export function attach(
  stack: TestStack,
  { controlSocket }: Pick<Stranger, "controlSocket">,
  more: object = {},
): Promise<InstanceResource> {
  const body = { name: "theirs", hypervisor: "qemu", attach: { control_socket: controlSocket, ...more } }
  return stack.api.request("POST", "/instances", body)
}

export function fork(stack: TestStack, { id }: SnapshotResource): Promise<InstanceResource> {
  return stack.api.request("POST", `/snapshots/${id}/fork`, { name: "copy" })
}

export function get(stack: TestStack, { id }: { id: string }): Promise<InstanceResource> {
  return stack.api.request("GET", `/instances/${id}`)
}

export function untilState(
  stack: TestStack,
  instance: InstanceResource,
  state: InstanceResource["state"],
): Promise<InstanceResource> {
  return stack.until(async () => {
    const now = await get(stack, instance)
    return now.state === state ? now : undefined
  })
}

/** The VM in `dir` went on from where the other one stood, between the two moments in its life. */
export async function expectGoesOnBetween(dir: string, before: string, after: string): Promise<void> {
  await untilTicks(dir, 4)
  const printed = await serial(dir)
  const whole = printed.slice(printed.indexOf("\n") + 1)
  const [first] = ticks(whole)
  expect(firstGap(whole)).toBeUndefined()
  expect(first?.sum).toBe(ticks(before).at(-1)?.sum)
  expect(first?.tick).toBeGreaterThan(ticks(before).at(-1)?.tick ?? Infinity)
  expect(first?.tick).toBeLessThanOrEqual((ticks(after).at(-1)?.tick ?? 0) + 2)
}

export function homeOf({ dataDir }: TestStack, { id }: InstanceResource): string {
  return join(dataDir, "instances", id)
}

/** Requests a snapshot and waits until its captor has paused the VM and is saving. */
export async function untilPaused(
  stack: TestStack,
  instance: InstanceResource,
): Promise<{ snapshot: SnapshotResource; record: PauseRecord }> {
  const snapshot = await stack.snapshot(instance)
  const home = homeOf(stack, instance)
  await untilTrue(home, async () => (await readdir(home)).includes("pause.json"))
  const record = JSON.parse(await readFile(join(home, "pause.json"), "utf8")) as PauseRecord
  const attempt = join(stack.storageDir, "snapshots", snapshot.id, record.token)
  await untilTrue(attempt, async () => (await stat(join(attempt, "memory"))).size > 0)
  return { snapshot, record }
}
