import { vmmHypervisor } from "@stillframe/hypervisors/file-vmm/hypervisor"
import { firecrackerControl } from "@stillframe/hypervisors/firecracker/control"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { heartbeat, qemu, type Ground } from "../test-vm.ts"
import { httpRefusal } from "./http-refusal.ts"
import { playedFullDisk } from "./played-full-disk.ts"
import type { FullDisk, Subject, Wire } from "./subject.ts"

const guest: GuestConfig = { memoryMib: 16, vcpus: 1, kernel: heartbeat, disks: [] }

const wire: Wire = {
  socket: "api.sock",
  steps: {
    pause: /^PATCH \/vm .*"Paused"/s,
    save: /^PUT \/snapshot\/create /,
    resume: /^PATCH \/vm .*"Resumed"/s,
  },
  refusal: () => httpRefusal(400, JSON.stringify({ fault_message: "not now" })),
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
      const tools = { name: "firecracker", binary: await binaryIn(place), qemuImg: qemu.qemuImg } as const
      if (answerMs === undefined) return vmmHypervisor(firecracker, tools)
      const control = (dir: string, config: GuestConfig) => firecrackerControl(dir, config, answerMs)
      return vmmHypervisor({ ...firecracker, control }, tools)
    },
    pause: async (dir) => await firecracker.control(dir, guest).pause(),
    isRunning: async (dir) => (await firecracker.control(dir, guest).state()) === "running",
  }
}

const fullDisks = [
  ...["enospc_state", "enospc_memory"].map((save) =>
    playedFullDisk(save, { save }, { code: "insufficient_storage", words: /no space/ }),
  ),
  playedFullDisk("cut_state", { save: "cut_state" }, { code: "hypervisor_failed", words: /checksum/ }),
  playedFullDisk("cut_memory", { save: "cut_memory" }, { code: "hypervisor_failed", words: /16 MiB/ }),
]

const standIn = (version: string): Subject =>
  subject(
    `firecracker ${version} (stand-in)`,
    async ({ root }) => await fakeBinary(root, "firecracker", version),
    fullDisks,
  )

export const firecrackers: readonly Subject[] = [standIn("1.16.1"), standIn("1.12.1")]

const real = process.env["FIRECRACKER_BINARY"]

export const realFirecrackers: readonly Subject[] =
  real === undefined ? [] : [subject(`firecracker ${real} (real)`, async () => real, [])]
