import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import type { Disk } from "../disks/disks.ts"
import type { GuestConfig } from "../launch-config.ts"
import { vmFiles } from "./files.ts"
import { diskFile } from "./vm-config.ts"

type Members = Record<string, unknown>

/** Resources outside of the VM's directory, which two VMs cannot share. No launch of ours names one. */
const hostThings = [
  "devices",
  "fs",
  "generic-vhost-user",
  "ivshmem",
  "pmem",
  "tpm",
  "user_devices",
  "vdpa",
] as const

/**
 * The saved configuration with the names of another directory: the VMM opens what it finds there. Device
 * state is another file and stays as it is, and with it all that the guest knows, such as its MAC addresses.
 * Throws `not_supported` for a configuration that shares a thing of the host, and `conflict` where it is not
 * that of `config` and `disks`.
 */
export function rewriteConfig(saved: Members, config: GuestConfig, disks: readonly Disk[]): Members {
  const shared = hostThings.find((name) => isPresent(saved[name])) ?? sharedMemory(saved)
  if (shared !== undefined)
    throw new StillframeError(
      "not_supported",
      `the snapshot's VM has ${shared} of its host, which cannot be given to another; restore it where it was saved`,
    )
  assertSameShape(saved, config)
  return {
    ...saved,
    ...(isPresent(saved["disks"]) && { disks: rewriteDisks(saved["disks"] as Members[], disks) }),
    serial: { mode: "File", file: vmFiles.serial },
    console: { mode: "Off" },
    ...(saved["debug_console"] !== undefined && { debug_console: { ...offDebugConsole } }),
    ...(isPresent(saved["vsock"]) && { vsock: { ...(saved["vsock"] as Members), socket: vsockSocket } }),
    // A tap of its own, which the VMM makes and the kernel names.
    ...(isPresent(saved["net"]) && {
      net: (saved["net"] as Members[]).map((net) => ({ ...net, tap: null })),
    }),
  }
}

const vsockSocket = "vsock.sock"
const offDebugConsole = { mode: "Off" } as const

const isPresent = (value: unknown): boolean =>
  value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0)

function sharedMemory(saved: Members): string | undefined {
  const { zones } = (saved["memory"] ?? {}) as { zones?: { file?: unknown }[] | null }
  return zones?.some(({ file }) => isPresent(file)) ? "memory in files" : undefined
}

function assertSameShape(saved: Members, { memoryMib, vcpus }: GuestConfig): void {
  const { size = 0 } = (saved["memory"] ?? {}) as { size?: number }
  const { boot_vcpus: cpus = 0 } = (saved["cpus"] ?? {}) as { boot_vcpus?: number }
  if (size !== memoryMib * 1024 ** 2) throw differs(`${size / 1024 ** 2} MiB of memory`, `${memoryMib}`)
  if (cpus !== vcpus) throw differs(counted(cpus, "processor"), `${vcpus}`)
}

function rewriteDisks(saved: readonly Members[], disks: readonly Disk[]): Members[] {
  if (saved.length !== disks.length) throw differs(counted(saved.length, "disk"), `${disks.length}`)
  return saved.map((member, index) => {
    const disk = disks[index]
    if (disk === undefined || member["readonly"] !== disk.readonly)
      throw differs(`a disk ${index} that is ${member["readonly"] ? "read-only" : "writable"}`, "another")
    if (member["vhost_user"] === true)
      throw new StillframeError("not_supported", `disk ${index} is served by another process of its host`)
    return { ...member, path: diskFile(disk) }
  })
}

const differs = (saved: string, asked: string): StillframeError =>
  new StillframeError(
    "conflict",
    `the snapshot's VM has ${saved} and the restore asks for ${asked}; ask for what it has`,
  )
