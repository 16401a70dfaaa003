import { StillframeError } from "@stillframe/domain/errors"

/** Ends every message about words that only the log shows. */
export const logHasWhy = "the log of the capture-worker says why"

/**
 * A hypervisor looked at the guest that it was given and refused it, as opposed to a crash:
 * `hypervisor_failed`, whose cause may be what the caller gave.
 */
export class GuestRefusal extends StillframeError {
  constructor(message: string, said: string) {
    super("hypervisor_failed", message, { said })
  }
}

/**
 * The error for a hypervisor that did not take its guest: a `GuestRefusal` unless its words are about the
 * host.
 */
export function refusedGuest(message: string, said: string): StillframeError {
  if (noRoom.test(said))
    return new StillframeError(
      "insufficient_storage",
      "the host has no space for the VM's files; free some space and try again",
      { said },
    )
  if (hostFault.test(said)) return new StillframeError("hypervisor_failed", message, { said })
  return new GuestRefusal(message, said)
}

const noRoom = /No space left on device|Disk quota exceeded/
/** Its KVM, its installation, its limits. */
const hostFault =
  /KVM kernel module|initialize kvm|\/dev\/kvm|KVM object|hypervisor instance|romfile|PC BIOS|seccomp|Failed to bind|Too many open files|Resource temporarily unavailable|Input\/output error/i
