import type { Hypervisor } from "./instance.ts"

/** What a host needs before it can offer a hypervisor, as a sentence for people. */
export const hostNeeds: Readonly<Record<Hypervisor, string>> = {
  "cloud-hypervisor":
    "cloud-hypervisor needs v48 or later on Linux with /dev/kvm; install it there, or name it in CLOUD_HYPERVISOR_BINARY",
  firecracker:
    "firecracker needs 1.12 or later on Linux with /dev/kvm; install it there, or name it in FIRECRACKER_BINARY",
  qemu: "qemu needs qemu-system-x86_64 on the host; install it there, or name it in QEMU_BINARY",
  "qemu-microvm": 'qemu-microvm is no hypervisor of its own here; use qemu with "machine": "microvm"',
  vz: "vz needs macOS 14 or later on Apple silicon; use another hypervisor here, or a host that is such a Mac",
}
