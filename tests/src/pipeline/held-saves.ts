import { readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { PauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import type { Hypervisor, InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { expect } from "vitest"
import { untilTrue, type TestStack } from "./test-stack.ts"
import { onMacOptions } from "./vmm-stack.ts"

/** A hypervisor of the whole stack, and how a test finds a captor of it inside a save. */
export interface Subject {
  readonly name: Hypervisor
  /** Of a save that is under way. */
  readonly canCancel: boolean
  /** What the worker's process is told. */
  env(stack: TestStack): Promise<Record<string, string>>
  readonly launch: object
  /** Has the next save of a VM take long. */
  hold(dir: string): Promise<void>
  /** Resolves when its captor waits for the save. */
  untilHeld(dir: string, attempt: string): Promise<void>
  /** Lets it end. Does nothing where it can be called off. */
  release(dir: string): Promise<void>
}

export const subjects: readonly Subject[] = [
  {
    name: "qemu",
    canCancel: true,
    env: async () => ({}),
    // Pages that were never touched are still looked at: enough of them make a pause that a test can aim at.
    launch: { image: "heartbeat", memory_mib: 3_072 },
    hold: async () => {},
    async untilHeld(_, attempt) {
      await untilTrue(attempt, async () => (await stat(join(attempt, "memory"))).size > 0)
    },
    release: async () => {},
  },
  {
    name: "cloud-hypervisor",
    canCancel: false,
    env: async ({ dataDir }) => ({
      CLOUD_HYPERVISOR_BINARY: await fakeBinary(dataDir, "cloud-hypervisor", "v53.0"),
    }),
    launch: { image: "heartbeat" },
    hold: async (dir) => {
      await rm(join(dir, "hanging"), { force: true })
      await writeFault(dir, { "vm.snapshot": { does: "hold" } })
    },
    async untilHeld(dir) {
      await untilTrue(dir, async () => (await readdir(dir)).includes("hanging"))
    },
    release: clearFault,
  },
  {
    name: "firecracker",
    canCancel: false,
    env: async ({ dataDir }) => ({ FIRECRACKER_BINARY: await fakeBinary(dataDir, "firecracker", "1.16.1") }),
    launch: { image: "heartbeat" },
    hold: async (dir) => await writeFault(dir, { save: "hang_memory" }),
    untilHeld: async (_, attempt) => await untilWritten(attempt, "vmstate"),
    release: clearFault,
  },
  {
    name: "vz",
    canCancel: false,
    env: async ({ dataDir }) => ({
      VZ_SHIM_BINARY: await fakeBinary(dataDir, "vz-shim"),
      NODE_OPTIONS: onMacOptions,
    }),
    launch: { image: "heartbeat" },
    hold: async (dir) => await writeFault(dir, { "vm.snapshot": "hold" }),
    untilHeld: async (_, attempt) => await untilWritten(attempt, "machine-state.vzm"),
    release: clearFault,
  },
]

async function untilWritten(attempt: string, file: string): Promise<void> {
  const written = async (): Promise<boolean> =>
    (await readdir(attempt, { recursive: true })).some((name) => name.endsWith(file))
  await expect.poll(written).toBe(true)
}

async function writeFault(dir: string, fault: object): Promise<void> {
  await writeFile(join(dir, "fault.json"), JSON.stringify(fault))
}

async function clearFault(dir: string): Promise<void> {
  await rm(join(dir, "fault.json"), { force: true })
}

/** Requests a snapshot and waits until its captor has paused the VM and is saving. */
export async function untilSaving(
  stack: TestStack,
  subject: Subject,
  instance: InstanceResource,
): Promise<{ snapshot: SnapshotResource; record: PauseRecord }> {
  const dir = stack.generationDir(instance)
  await subject.hold(dir)
  const snapshot = await stack.snapshot(instance)
  const home = join(stack.dataDir, "instances", instance.id)
  await untilTrue(home, async () => (await readdir(home)).includes("pause.json"))
  const record = JSON.parse(await readFile(join(home, "pause.json"), "utf8")) as PauseRecord
  const attempt = join(stack.storageDir, "snapshots", snapshot.id, record.token)
  await subject.untilHeld(dir, attempt)
  return { snapshot, record }
}
