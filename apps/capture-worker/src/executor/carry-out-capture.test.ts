import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { carryOutCapture } from "./carry-out-capture.ts"
import type { CaptureOrder } from "./orders.ts"
import type { Captor } from "./save-vm.ts"

function orderIn(place: string): CaptureOrder {
  return {
    kind: "capture",
    clusterId: "cluster",
    dataDir: place,
    storageDir: place,
    instanceId: "vm",
    instanceName: "vm",
    generation: 1,
    operationId: "operation",
    token: "token",
    leaseMs: 30_000,
    hypervisor: { name: "qemu", binary: "", qemuImg: "" },
    hypervisorVersion: "10.0.2",
    launch: { memoryMib: 16, vcpus: 1, disks: [] },
    memoryMib: 16,
    pauseExpectedMs: 1_000,
    pauseLimitMs: 1_000,
    snapshotId: "snapshot",
    source: { state: "Stopped" },
    mode: "paused",
    clock: { databaseMs: 0, monotonicMs: 0 },
  }
}

function captorWith(signal: AbortSignal): Captor {
  return { signal, cancelled: signal, report: () => {}, leaseRemainingMs: () => 0 }
}

test("a captor that nobody waits for any more makes nothing, whether or not there is a pause to spare", async () => {
  const place = await mkdtemp(join(tmpdir(), "stillframe-captor-"))
  const late = carryOutCapture(orderIn(place), captorWith(AbortSignal.abort()))

  await expect(late).rejects.toMatchObject({ code: "cancelled" })
  expect(await readdir(place)).toEqual([])
  await rm(place, { recursive: true })
})

test("a capture that fails leaves no directory of its snapshot", async () => {
  const place = await mkdtemp(join(tmpdir(), "stillframe-captor-"))
  await mkdir(join(place, "snapshots"))

  // The VM has lost its files.
  const failing = carryOutCapture(orderIn(place), captorWith(new AbortController().signal))

  await expect(failing).rejects.toMatchObject({ code: "corrupted" })
  expect(await readdir(join(place, "snapshots"))).toEqual([])
  await rm(place, { recursive: true })
})
