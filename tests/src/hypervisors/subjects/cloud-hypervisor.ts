import { controlVm } from "@stillframe/hypervisors/cloud-hypervisor/control"
import { cloudHypervisor } from "@stillframe/hypervisors/cloud-hypervisor/vmm"
import { vmmHypervisor } from "@stillframe/hypervisors/file-vmm/hypervisor"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { heartbeat, qemu, type Ground } from "../test-vm.ts"
import { httpRefusal } from "./http-refusal.ts"
import { playedFullDisk } from "./played-full-disk.ts"
import type { FullDisk, Subject, Wire } from "./subject.ts"

const guest: GuestConfig = { memoryMib: 64, vcpus: 1, kernel: heartbeat, disks: [] }
const anyAnswerMs = 10_000

const wire: Wire = {
  socket: "api.sock",
  steps: { pause: /^PUT \S+vm\.pause /, save: /^PUT \S+vm\.snapshot /, resume: /^PUT \S+vm\.resume / },
  refusal: () => httpRefusal(500, JSON.stringify(["Error from API", "not now"])),
}

function subject(
  title: string,
  binaryIn: (place: Ground) => Promise<string>,
  fullDisks: readonly FullDisk[],
): Subject {
  return {
    title,
    guest,
    wire,
    fullDisks,
    async hypervisor(place, { answerMs } = {}) {
      const tools = {
        name: "cloud-hypervisor",
        binary: await binaryIn(place),
        qemuImg: qemu.qemuImg,
      } as const
      if (answerMs === undefined) return vmmHypervisor(cloudHypervisor, tools)
      return vmmHypervisor({ ...cloudHypervisor, control: (dir) => controlVm(dir, answerMs) }, tools)
    },
    pause: async (dir) => await controlVm(dir, anyAnswerMs).pause(),
    isRunning: async (dir) => (await controlVm(dir, anyAnswerMs).state()) === "running",
  }
}

const cutShort = (file: string): FullDisk =>
  playedFullDisk(
    file,
    { "vm.snapshot": { does: "full", file } },
    { code: "hypervisor_failed", words: /cut short|bytes where/ },
  )

const fullDisks = [
  cutShort("config.json"),
  cutShort("state.json"),
  cutShort("memory-ranges-silently"),
  playedFullDisk(
    "memory-ranges",
    { "vm.snapshot": { does: "full", file: "memory-ranges" } },
    { code: "insufficient_storage", words: /no space/ },
  ),
]

const standIn = (version: string): Subject =>
  subject(
    `cloud-hypervisor ${version} (stand-in)`,
    async ({ root }) => await fakeBinary(root, "cloud-hypervisor", version),
    fullDisks,
  )

export const cloudHypervisors: readonly Subject[] = [standIn("v53.0"), standIn("v48.0")]

const real = process.env["CLOUD_HYPERVISOR_BINARY"]

export const realCloudHypervisors: readonly Subject[] =
  real === undefined ? [] : [subject(`cloud-hypervisor ${real} (real)`, async () => real, [])]
