import { shownReason } from "./reason.ts"

/** Why snapshots of a VM cannot be restored or forked: an option of its owner's command line, or a device, that a VM of ours cannot have. */
export function unlaunchable(option: string): string {
  return `the VM runs with ${option}, which Stillframe cannot recreate, so its snapshots cannot be restored or forked. Restart the VM without it and attach it again.`
}

/** Why a VM cannot be captured at all: its hypervisor's own reasons. */
export function unsavable(reasons: readonly string[]): string {
  return `QEMU cannot save this VM: ${reasons.join("; ")}. Restart the VM without that device or setting and attach it again.`
}

/** How a resource shows it: nothing where it can be restored. */
export function restorableMembers(reason: string | null): {
  readonly restorable?: false
  readonly restorable_reason?: string
} {
  return reason === null ? {} : { restorable: false, restorable_reason: shownReason(reason) }
}
