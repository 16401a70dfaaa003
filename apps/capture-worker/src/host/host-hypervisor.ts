import type { Capabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { hostNeeds } from "@stillframe/domain/hypervisor-needs"
import type { Hypervisor } from "@stillframe/domain/instance"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { StoredLaunch } from "./resolve-launch.ts"

/** What this host was found to have of one hypervisor. */
export interface HostHypervisor {
  readonly capabilities: Capabilities
  readonly tools: HypervisorTools
  /**
   * What a launch that was stored as its caller spelt it comes down to on this host. Throws
   * `invalid_request`.
   */
  resolveLaunch(stored: StoredLaunch): GuestConfig
  /**
   * What a guest that another hypervisor has run is launched with. Throws `invalid_request` for one that
   * can't be.
   */
  adopt(guest: GuestConfig): GuestConfig
}

/** Throws `hypervisor_unavailable` where the host has none of that name. */
export function hostHypervisor<Host extends Pick<HostHypervisor, "tools">>(
  { hypervisors }: { readonly hypervisors: ReadonlyMap<Hypervisor, Host> },
  name: Hypervisor,
): Host {
  const found = hypervisors.get(name)
  if (found === undefined)
    throw new StillframeError(
      "hypervisor_unavailable",
      `this host no longer offers hypervisor "${name}": ${hostNeeds[name]}`,
    )
  return found
}
