import { StillframeError } from "@stillframe/domain/errors"
import type { Disk } from "../disks/disks.ts"
import type { GuestConfig } from "../launch-config.ts"
import { vzFiles } from "./files.ts"
import type { Machine } from "./machine.ts"

/**
 * The configuration of the shim, as JSON behind `-config`. Its paths may be relative to its working
 * directory.
 */
export interface ShimConfig {
  readonly vcpus: number
  readonly memory_bytes: number
  readonly disks: readonly { path: string; readonly: boolean }[]
  readonly networks: readonly { mac: string }[]
  readonly serial_log_path: string
  readonly kernel_path: string
  readonly initrd_path: string
  readonly kernel_args: string
  readonly control_socket: string
  readonly vsock_socket: string
  /** Empty: it logs to its standard error. */
  readonly log_path: string
  readonly machine_identifier_data: string
  /** With one the machine is not booted but loaded, and left paused. */
  readonly restore_machine_state_path?: string
}

/** Throws `not_supported` for a VM without a kernel, or with a disk that is no single raw file. */
export function shimConfig(
  config: GuestConfig,
  { disks, machine, savedState }: { disks: readonly Disk[]; machine: Machine; savedState?: string },
): ShimConfig {
  if (config.kernel === undefined)
    throw new StillframeError("not_supported", "vz boots a VM from a kernel only; name one in the launch")
  return {
    vcpus: config.vcpus,
    memory_bytes: config.memoryMib * 1024 ** 2,
    disks: disks.map(rawDisk),
    networks: [{ mac: machine.mac }],
    serial_log_path: vzFiles.serial,
    kernel_path: vzFiles.kernel,
    initrd_path: config.initrd === undefined ? "" : vzFiles.initrd,
    kernel_args: config.cmdline ?? "",
    control_socket: vzFiles.control,
    vsock_socket: vzFiles.vsock,
    log_path: "",
    machine_identifier_data: machine.machine_identifier,
    ...(savedState !== undefined && { restore_machine_state_path: savedState }),
  }
}

function rawDisk({ layers, readonly }: Disk, index: number): { path: string; readonly: boolean } {
  const [only, ...more] = layers
  if (only === undefined || more.length > 0 || only.format !== "raw")
    throw new StillframeError(
      "not_supported",
      `disk ${index} is not one raw file, and vz reads nothing else; convert it with qemu-img convert -O raw`,
    )
  return { path: only.file, readonly }
}
