import type { Capabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { hostNeeds } from "@stillframe/domain/hypervisor-needs"
import type { Hypervisor } from "@stillframe/domain/instance"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { StoredLaunch } from "./resolve-launch.ts"

/** One hypervisor of this host, as its probe found it. */
export interface HostHypervisor {
  readonly capabilities: Capabilities
  readonly tools: HypervisorTools
  /** Resolves a stored launch for this host. Throws `invalid_request`. */
  resolveLaunch(stored: StoredLaunch): GuestConfig
  /** Adapts a guest of another hypervisor. Throws `invalid_request` if that is impossible. */
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
