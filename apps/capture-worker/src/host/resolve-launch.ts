import { StillframeError } from "@stillframe/domain/errors"
import { guestObstacle } from "@stillframe/domain/hypervisor-needs"
import type { Hypervisor } from "@stillframe/domain/instance"
import { builtinImage } from "@stillframe/hypervisors/images"
import {
  checkGuestConfig,
  checkLaunchConfig,
  pinMachine,
  type DiskConfig,
  type GuestConfig,
  type LaunchConfig,
  type MachineTypes,
} from "@stillframe/hypervisors/launch-config"

/** A launch as the API stored it: checked there for its shape, members in the caller's spelling. */
export interface StoredLaunch {
  readonly image?: string
  readonly kernel?: string
  readonly initrd?: string
  readonly cmdline?: string
  readonly memory_mib?: number
  readonly vcpus?: number
  readonly machine?: string
  readonly disks?: readonly {
    readonly path: string
    readonly format: "raw" | "qcow2"
    readonly readonly?: boolean
  }[]
}

/** The settings of this host's QEMU that each launch needs. */
interface QemuOfHost {
  readonly machines: MachineTypes
  readonly accel: LaunchConfig["accel"]
  /** The directory of the built-in guests. */
  readonly imagesDir: string
}

/** Resolves a stored launch for this host. Throws `invalid_request` if it cannot be launched. */
export function resolveLaunch(
  stored: StoredLaunch,
  { machines, accel, imagesDir }: QemuOfHost,
): LaunchConfig {
  return onQemu(guestOf(stored, imagesDir), { machine: pinMachine(stored.machine ?? "q35", machines), accel })
}

/** Adapts a guest of another hypervisor to this host's QEMU. */
export function adoptOnQemu(guest: GuestConfig, { machines, accel }: QemuOfHost): LaunchConfig {
  return onQemu(guest, { machine: machines.q35, accel })
}

function onQemu(
  guest: GuestConfig,
  { machine, accel }: Pick<LaunchConfig, "machine" | "accel">,
): LaunchConfig {
  const launch: LaunchConfig = { machine, accel, cpu: accel === "kvm" ? "host" : "qemu64", ...guest }
  checkLaunchConfig(launch)
  return launch
}

/** Resolves a stored launch for a hypervisor other than QEMU. */
export function resolveGuest(stored: StoredLaunch, imagesDir: string): GuestConfig {
  if (stored.machine !== undefined)
    throw new StillframeError("invalid_request", '"launch.machine" is for QEMU only; omit it')
  const guest = guestOf(stored, imagesDir)
  checkGuestConfig(guest)
  return guest
}

/** Adapts a guest of another hypervisor, without that one's own members. */
export function adoptGuest(
  { memoryMib, vcpus, kernel, initrd, cmdline, disks }: GuestConfig,
  hypervisor: Hypervisor,
): GuestConfig {
  const obstacle = guestObstacle(hypervisor, { kernel, vcpus })
  if (obstacle !== undefined) throw new StillframeError("invalid_request", obstacle)
  return {
    memoryMib,
    vcpus,
    ...(kernel !== undefined && { kernel }),
    ...(initrd !== undefined && { initrd }),
    ...(cmdline !== undefined && { cmdline }),
    disks,
  }
}

function guestOf(stored: StoredLaunch, imagesDir: string): GuestConfig {
  const image = stored.image === undefined ? undefined : builtinImage(stored.image, imagesDir)
  const kernel = stored.kernel ?? image?.kernel
  const initrd = stored.initrd ?? image?.initrd
  const cmdline = stored.cmdline ?? image?.cmdline
  return {
    memoryMib: stored.memory_mib ?? image?.memoryMib ?? defaultMemoryMib,
    vcpus: stored.vcpus ?? 1,
    ...(kernel !== undefined && { kernel }),
    ...(initrd !== undefined && { initrd }),
    ...(cmdline !== undefined && { cmdline }),
    disks: (stored.disks ?? []).map(({ path, format, readonly }): DiskConfig => ({
      path,
      format,
      readonly: readonly ?? false,
    })),
  }
}

const defaultMemoryMib = 512
