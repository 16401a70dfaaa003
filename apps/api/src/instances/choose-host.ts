import type { LiveHost } from "@stillframe/db/hosts/hosts"
import { StillframeError } from "@stillframe/domain/errors"
import { hostNeeds } from "@stillframe/domain/hypervisor-needs"
import type { Hypervisor } from "@stillframe/domain/instance"

/**
 * Chooses the named host, or the only one. Throws `unavailable` while none is up, `not_supported` if the
 * hypervisor is not offered, and `invalid_request` if the host is not named or not up.
 */
export function chooseHost(
  hosts: readonly LiveHost[],
  { wanted, hypervisor }: { wanted: string | undefined; hypervisor: Hypervisor },
): LiveHost {
  const [first, second] = hosts
  if (first === undefined)
    throw new StillframeError(
      "unavailable",
      "no host is up; start a capture-worker on a machine for VMs and try again",
    )
  // Whichever host is named, there is no way to have it.
  if (hosts.every(({ hypervisors }) => hypervisors[hypervisor] === undefined))
    throw notOffered("no host that is up offers", hypervisor, hosts)
  const names = hosts.map(({ name }) => name).join(", ")
  if (wanted === undefined && second !== undefined)
    throw new StillframeError("invalid_request", `several hosts are up; name one of them as "host": ${names}`)
  const host = wanted === undefined ? first : hosts.find(({ name }) => name === wanted)
  if (host === undefined)
    throw new StillframeError("invalid_request", `host "${wanted}" is not up; hosts that are: ${names}`)
  if (host.hypervisors[hypervisor] === undefined)
    throw notOffered(`host "${host.name}" does not offer`, hypervisor, [host])
  return host
}

/** The names of what hosts have, for people. */
export function offeredBy(hosts: readonly Pick<LiveHost, "hypervisors">[]): string {
  const offered = new Set(hosts.flatMap(({ hypervisors }) => Object.keys(hypervisors)))
  return [...offered].join(", ") || "none"
}

function notOffered(who: string, hypervisor: Hypervisor, hosts: readonly LiveHost[]): StillframeError {
  return new StillframeError(
    "not_supported",
    `${who} hypervisor "${hypervisor}": ${hostNeeds[hypervisor]}. Offered: ${offeredBy(hosts)}`,
  )
}
