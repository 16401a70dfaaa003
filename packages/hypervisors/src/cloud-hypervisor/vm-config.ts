import { StillframeError } from "@stillframe/domain/errors"
import type { Disk } from "../disks/disks.ts"
import type { GuestConfig } from "../launch-config.ts"
import { vmFiles } from "./files.ts"

/** The body of `vm.create`. Throws `not_supported` for what this VMM has no place for. */
export function vmConfig(config: GuestConfig, disks: readonly Disk[], version: string): object {
  // Booting from a disk takes a firmware, and none comes with us.
  if (config.kernel === undefined)
    throw new StillframeError("not_supported", "cloud-hypervisor boots no disk without a kernel; name one")
  return {
    cpus: { boot_vcpus: config.vcpus, max_vcpus: config.vcpus },
    memory: { size: config.memoryMib * 1024 ** 2 },
    payload: {
      kernel: vmFiles.kernel,
      ...(config.initrd !== undefined && { initramfs: vmFiles.initrd }),
      ...(config.cmdline !== undefined && { cmdline: config.cmdline }),
    },
    ...(disks.length > 0 && { disks: disks.map((disk) => diskConfig(disk, version)) }),
    serial: { mode: "File", file: vmFiles.serial },
    console: { mode: "Off" },
    rng: { src: "/dev/urandom" },
  }
}

/**
 * True if a disk's format can be named; where it can't, the VMM goes by what the disk's first bytes look
 * like.
 */
export const namesImageTypes = (version: string): boolean => majorOf(version) >= 51

export const majorOf = (version: string): number => Number.parseInt(version, 10)

function diskConfig(disk: Disk, version: string): object {
  return {
    path: diskFile(disk),
    readonly: disk.readonly,
    ...(namesImageTypes(version) && { image_type: "Raw" }),
  }
}

/** The one file of a disk, by its name in the VM's directory. */
export function diskFile({ layers }: Disk): string {
  const [layer, ...below] = layers
  if (layer?.format === "raw" && below.length === 0) return layer.file
  throw new StillframeError(
    "not_supported",
    "cloud-hypervisor gets single raw files as disks; convert the image",
  )
}
