import { StillframeError } from "@stillframe/domain/errors"

/**
 * A guest, as any hypervisor needs it: stored in the register and in every manifest, so only data
 * that a person can read and re-enter.
 */
export interface GuestConfig {
  memoryMib: number
  vcpus: number
  kernel?: string
  initrd?: string
  cmdline?: string
  disks: DiskConfig[]
}

/** How a VM is launched on QEMU. */
export interface LaunchConfig extends GuestConfig {
  /**
   * An exact machine type of the binary (`pc-q35-7.2`, `pc-i440fx-7.2`) or `microvm`; an alias would change
   * with the binary.
   */
  machine: string
  accel: "tcg" | "kvm"
  cpu: (typeof cpuModels)[number]
}

export interface DiskConfig {
  /** Absolute path of the caller's file on the host that runs the VM. It is never written. */
  path: string
  format: "raw" | "qcow2"
  readonly: boolean
  /**
   * Names the image that it was imported as; absent before the launch, and for a disk that the VM writes in
   * place.
   */
  sha256?: string
}

const cpuModels = ["qemu64", "max", "host"] as const

/**
 * The versioned machine types of a host's QEMU (`probeQemu` reads them): the newest of each family, and all
 * of them.
 */
export interface MachineTypes {
  q35: string
  pc: string
  known: readonly string[]
}

const MEMORY_MIB = { min: 16, max: 4 * 1024 * 1024 }
const VCPUS = { min: 1, max: 255 }
const DISKS_MAX = 16
const CMDLINE_BYTES_MAX = 2047
const PATH_BYTES_MAX = 4095
const exactMachine = /^(pc-q35-\d{1,2}\.\d{1,2}|pc-i440fx-\d{1,2}\.\d{1,2}|microvm)$/
// oxlint-disable-next-line no-control-regex -- control characters are the very thing that is refused
const controlCharacter = /[\u0000-\u001f\u007f]/

/**
 * The exact machine type behind a caller's short name; exact names that the binary has pass unchanged. Throws
 * `invalid_request` for any other.
 */
export function pinMachine(machine: string, types: MachineTypes): string {
  if (machine === "q35") return types.q35
  if (machine === "pc") return types.pc
  if (machine === "microvm" || types.known.includes(machine)) return machine
  throw invalid(
    `machine "${machine}" is not offered by this host's QEMU; use q35, pc, microvm or an exact type such as ${types.q35}`,
  )
}

/** Checks shapes and ranges, without looking at the host. Throws `invalid_request` naming the member. */
export function checkLaunchConfig(config: LaunchConfig): void {
  if (!exactMachine.test(config.machine))
    throw invalid(`machine "${config.machine}" is not an exact machine type`)
  if (!["tcg", "kvm"].includes(config.accel)) throw invalid("accel must be tcg or kvm")
  if (!cpuModels.includes(config.cpu)) throw invalid(`cpu must be one of ${cpuModels.join(", ")}`)
  if (config.cpu === "host" && config.accel !== "kvm")
    throw invalid('cpu "host" needs accel kvm; use qemu64 or max')
  checkGuestConfig(config)
}

/** Checks the members that no hypervisor has for itself. */
export function checkGuestConfig(config: GuestConfig): void {
  checkSize(config)
  if (config.disks.length > DISKS_MAX) throw invalid(`a VM has at most ${DISKS_MAX} disks`)
  if (config.kernel === undefined && (config.initrd !== undefined || config.cmdline !== undefined)) {
    throw invalid("initrd and cmdline need a kernel")
  }
  if (config.kernel === undefined && config.disks.length === 0)
    throw invalid("give a kernel or a disk to boot from")
  if (config.cmdline !== undefined) checkCmdline(config.cmdline)
  for (const path of [config.kernel, config.initrd]) if (path !== undefined) checkPathShape(path)
  for (const disk of config.disks) {
    checkPathShape(disk.path)
    if (!["raw", "qcow2"].includes(disk.format))
      throw invalid("a disk's format must be raw or qcow2; it is never guessed")
  }
}

/** Throws `invalid_request` naming the member. */
export function checkSize({ memoryMib, vcpus }: Pick<GuestConfig, "memoryMib" | "vcpus">): void {
  checkRange("memory_mib", memoryMib, MEMORY_MIB)
  checkRange("vcpus", vcpus, VCPUS)
}

/**
 * Characters a host path may have: no comma or colon (option separators and protocol prefixes of QEMU), no
 * backslash, no control character. Throws `invalid_request`.
 */
export function checkPathShape(path: string): void {
  const shown = JSON.stringify(path.slice(0, 200))
  if (!path.startsWith("/")) throw invalid(`path ${shown} must be absolute`)
  if (Buffer.byteLength(path) > PATH_BYTES_MAX)
    throw invalid(`path ${shown}… is longer than ${PATH_BYTES_MAX} bytes`)
  if (/[,:\\]/.test(path) || controlCharacter.test(path)) {
    throw invalid(`path ${shown} holds a comma, colon, backslash or control character; rename the file`)
  }
}

function checkCmdline(cmdline: string): void {
  if (Buffer.byteLength(cmdline) > CMDLINE_BYTES_MAX)
    throw invalid(`cmdline is longer than ${CMDLINE_BYTES_MAX} bytes`)
  if (controlCharacter.test(cmdline)) throw invalid("cmdline holds a control character")
}

function checkRange(name: string, value: number, { min, max }: { min: number; max: number }): void {
  if (!Number.isInteger(value) || value < min || value > max)
    throw invalid(`${name} must be a whole number from ${min} to ${max}`)
}

const invalid = (message: string): StillframeError => new StillframeError("invalid_request", message)
