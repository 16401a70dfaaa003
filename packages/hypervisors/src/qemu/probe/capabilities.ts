import type { Capabilities } from "@stillframe/domain/capabilities"
import type { LiveCaptureProbe } from "./probe-live.ts"
import type { QemuProbe } from "./probe.ts"

/** The capabilities of a host's QEMU, given the result of the trial of live capture. */
export function qemuCapabilities(
  { version }: Pick<QemuProbe, "version">,
  live: LiveCaptureProbe,
): Capabilities {
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
    live_capture: live.live_capture,
    ...(live.reason !== undefined && { live_capture_reason: live.reason }),
  }
}
