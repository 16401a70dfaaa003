import { StillframeError } from "@stillframe/domain/errors"

/**
 * Makes sure that a process that was just started is of the version that the host's worker found, and by
 * which it chose the snapshot. Throws `not_supported`.
 */
export function assertLoads(running: string, { loadsOnly }: { readonly loadsOnly?: string }): void {
  if (loadsOnly === undefined || loadsOnly === running) return
  throw new StillframeError(
    "not_supported",
    `the hypervisor's binary is ${running} now, and was ${loadsOnly} when the host's capture-worker started, as the snapshot needs it; bring that version back, or restart the worker to use the new one`,
  )
}
