import type { OwnedDatabase } from "@stillframe/db/client"
import type { Capabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import { hostNeeds } from "@stillframe/domain/hypervisor-needs"
import type { Hypervisor } from "@stillframe/domain/instance"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { Logger } from "@stillframe/runtime/logger"
import type { Problems } from "@stillframe/runtime/problems"
import type { Place } from "@stillframe/storage/places/place"
import type { CaptureWorkerConfig } from "./config.ts"
import type { DiskGrowths } from "./host/disk-growths.ts"
import type { StoredLaunch } from "./host/resolve-launch.ts"
import type { Captors } from "./operations/executors/captors.ts"
import type { HostClock } from "./operations/host-clock.ts"
import type { HostRoom } from "./operations/host-room.ts"
import type { Growth } from "./pause/takeover.ts"
import type { Watches } from "./watch/watches.ts"

/** What the handlers of one capture-worker work with. */
export interface Worker {
  readonly clusterId: string
  readonly config: CaptureWorkerConfig
  /** `DATA_DIR`. */
  readonly home: Place
  /** `STORAGE_DIR`. */
  readonly pool: Place
  readonly db: OwnedDatabase
  readonly hypervisors: ReadonlyMap<Hypervisor, HostHypervisor>
  readonly watches: Watches
  readonly captors: Pick<Captors, "order">
  readonly grown: Growth
  readonly room: HostRoom
  readonly growths: DiskGrowths
  /** Tells publisher and numberer that a commit left them something. */
  readonly committed: () => void
  readonly log: Logger
  /** Goes out with each heartbeat. */
  readonly problems: Problems
  readonly clock: HostClock
}

/** What this host was found to have of one hypervisor. */
export interface HostHypervisor {
  readonly capabilities: Capabilities
  readonly tools: HypervisorTools
  /** What a launch that was stored as its caller spelt it comes down to on this host. Throws `invalid_request`. */
  resolveLaunch(stored: StoredLaunch): GuestConfig
  /** What a guest that another hypervisor has run is launched with. Throws `invalid_request` for one that can't be. */
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
