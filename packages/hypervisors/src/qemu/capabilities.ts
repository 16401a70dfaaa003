import type { Capabilities } from "@stillframe/domain/capabilities"
import type { QemuProbe } from "./probe.ts"

/** What a host's QEMU can do. */
export function qemuCapabilities({ version }: Pick<QemuProbe, "version">): Capabilities {
  return {
    version,
    kinds: ["Standby", "Stopped"],
    disk_freeze: "layers",
    attach: true,
    fork: true,
    disk_override: true,
    compressible_memory: true,
    restores: "same_machine",
    cancel: true,
    live_capture: false,
    live_capture_reason: "not offered yet",
  }
}
