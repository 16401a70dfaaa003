import { capabilitiesOf } from "@stillframe/db/hosts/hosts"
import type { InstanceRow } from "@stillframe/db/instances/instances"
import type { Database } from "@stillframe/db/schema"
import { StillframeError } from "@stillframe/domain/errors"

const remedy = 'ask for "capture": "paused", or leave it out'

/**
 * Throws `not_supported` with the reason for an instance whose memory can't be saved while it runs. One in
 * Standby has no pause at all, so nothing is asked of its host.
 */
export async function requireLiveCapture(
  db: Database,
  { attached, host, hypervisor, state }: InstanceRow,
): Promise<void> {
  if (attached !== null)
    throw new StillframeError("not_supported", `an attached VM cannot be captured live; ${remedy}`)
  if (state === "Standby") return
  const offered = (await capabilitiesOf(db, host))?.[hypervisor]
  if (offered?.live_capture === true) return
  const reason = offered?.live_capture_reason ?? `it has not said that its ${hypervisor} can`
  throw new StillframeError(
    "not_supported",
    `host "${host}" does not offer live captures of ${hypervisor}: ${reason}; ${remedy}`,
  )
}
