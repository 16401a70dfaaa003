import { shownReason } from "./text/reason.ts"

/**
 * Why snapshots of a VM cannot be restored or forked: an option of its owner's command line, or a device,
 * that a VM of ours cannot have.
 */
export function unlaunchable(option: string): string {
  return `the VM runs with ${option}, which Stillframe cannot recreate, so its snapshots cannot be restored or forked. Restart the VM without it and attach it again.`
}

const device = /^non-migratable device: (.+)$/

/**
 * Why a VM cannot be captured at all, from its hypervisor's own reasons, which may name the paths of its
 * host.
 */
export function unsavable(reasons: readonly string[]): string {
  const devices = reasons.flatMap((reason) => device.exec(reason)?.[1] ?? [])
  const what = devices.length > 0 ? `the device ${devices.join(", ")}` : "one of its devices or settings"
  return `QEMU cannot save this VM because of ${what}. Restart the VM without it and attach it again.`
}

/** How a resource shows it: nothing where it can be restored. */
export function restorableMembers(reason: string | null): {
  readonly restorable?: false
  readonly restorable_reason?: string
} {
  return reason === null ? {} : { restorable: false, restorable_reason: shownReason(reason) }
}
