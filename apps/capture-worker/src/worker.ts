import type { OwnedDatabase } from "@stillframe/db/client"
import type { Hypervisor } from "@stillframe/domain/instance"
import type { Logger } from "@stillframe/runtime/logger"
import type { Problems } from "@stillframe/runtime/problems"
import type { Place } from "@stillframe/storage/places/place"
import type { CaptureWorkerConfig } from "./config.ts"
import type { DiskGrowths } from "./host/disk-growths.ts"
import type { HostHypervisor } from "./host/host-hypervisor.ts"
import type { Captors } from "./operations/executors/captors.ts"
import type { HostClock } from "./operations/host-clock.ts"
import type { Growth } from "./pause/takeover.ts"
import type { Watches } from "./watch/watches.ts"

/** By instance, the bytes that what is under way may still write into this host's `DATA_DIR`. */
export type HostRoom = Map<string, number>

/** Dependencies of the handlers of one capture-worker. */
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
