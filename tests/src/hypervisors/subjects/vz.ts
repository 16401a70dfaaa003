import { vmmHypervisor } from "@stillframe/hypervisors/file-vmm/hypervisor"
import { vzOn } from "@stillframe/hypervisors/vz/vmm"
import { mac } from "../mac.ts"
import { qemu } from "../test-vm.ts"
import { fakeShim, guest, vz } from "../vz-vm.ts"
import { httpRefusal } from "./http-refusal.ts"
import { playedFullDisk } from "./played-full-disk.ts"
import type { Subject } from "./subject.ts"

/** Only the shim is a stand-in's: no Mac is at hand. */
export const vzSubject: Subject = {
  title: "vz (stand-in)",
  guest,
  bootsAtLaunch: true,
  wire: {
    socket: "vz.sock",
    steps: { pause: /^PUT \S+vm\.pause /, save: /^PUT \S+vm\.snapshot /, resume: /^PUT \S+vm\.resume / },
    refusal: () => httpRefusal(500, "not now"),
  },
  fullDisks: [
    playedFullDisk("full", { "vm.snapshot": "full" }, { code: "insufficient_storage", words: /no room/ }),
    playedFullDisk(
      "empty",
      { "vm.snapshot": "empty" },
      { code: "hypervisor_failed", words: /saved nothing/ },
    ),
    playedFullDisk(
      "unfinished",
      { "vm.snapshot": "unfinished" },
      { code: "hypervisor_failed", words: /saved nothing/ },
    ),
  ],
  async hypervisor(place, { answerMs } = {}) {
    const adapter =
      answerMs === undefined ? vz : vzOn({ host: mac, deadlineBaseMs: answerMs, deadlineMsPerMib: 0 })
    return vmmHypervisor(adapter, { name: "vz", binary: await fakeShim(place), qemuImg: qemu.qemuImg })
  },
  pause: async (dir) => await vz.control(dir, guest).pause(),
  isRunning: async (dir) => (await vz.control(dir, guest).state()) === "running",
}
