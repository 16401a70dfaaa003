import type { OwnedDatabase } from "@stillframe/db/client"
import type { Capabilities } from "@stillframe/domain/capabilities"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import type { LaunchConfig, MachineTypes } from "@stillframe/hypervisors/launch-config"
import type { Logger } from "@stillframe/runtime/logger"
import type { Captors } from "./captors.ts"
import type { CaptureWorkerConfig } from "./config.ts"
import type { Growth } from "./takeover.ts"
import type { Watches } from "./watches.ts"

/** What the handlers of one capture-worker work with. */
export interface Worker {
  readonly clusterId: string
  readonly config: CaptureWorkerConfig
  readonly db: OwnedDatabase
  readonly qemu: HostQemu
  readonly watches: Watches
  readonly captors: Pick<Captors, "order">
  readonly grown: Growth
  /** Tells publisher and numberer that a commit left them something. */
  readonly committed: () => void
  readonly log: Logger
}

/** What this host's QEMU was found to be. */
export interface HostQemu {
  readonly version: string
  readonly capabilities: Capabilities
  readonly machines: MachineTypes
  readonly accel: LaunchConfig["accel"]
  readonly tools: HypervisorTools
}
