import type { Hypervisor } from "./instance.ts"

/** Requirements of each hypervisor, for error messages. */
export const hostNeeds: Readonly<Record<Hypervisor, string>> = {
  "cloud-hypervisor":
    "cloud-hypervisor needs v48 or later on Linux with /dev/kvm; install it there, or name it in CLOUD_HYPERVISOR_BINARY",
  firecracker:
    "firecracker needs 1.12 or later on Linux with /dev/kvm; install it there, or name it in FIRECRACKER_BINARY",
  qemu: "qemu needs qemu-system-x86_64 on the host; install it there, or name it in QEMU_BINARY",
  "qemu-microvm": 'qemu-microvm is no hypervisor of its own here; use qemu with "machine": "microvm"',
  vz: "vz needs macOS 14 or later on Apple silicon; use another hypervisor here, or a host that is such a Mac",
}

/** Firecracker's own limit. */
const firecrackerVcpusMax = 32

/** The members of a guest that some hypervisors require or limit. */
interface GuestNeeds {
  readonly kernel?: unknown
  readonly vcpus: number
}

/**
 * Why a hypervisor can't boot a guest that another one has booted, with the remedy; undefined where it can.
 */
export function guestObstacle(hypervisor: Hypervisor, { kernel, vcpus }: GuestNeeds): string | undefined {
  const isQemu = hypervisor === "qemu" || hypervisor === "qemu-microvm"
  if (kernel === undefined && !isQemu)
    return `the VM boots from its disk, and ${hypervisor} needs a kernel: use target_hypervisor qemu, or launch it with a kernel and take the snapshot again`
  if (hypervisor === "firecracker" && vcpus > firecrackerVcpusMax)
    return `the VM has ${vcpus} vCPUs, and firecracker at most ${firecrackerVcpusMax}: use another target_hypervisor`
  return undefined
}
