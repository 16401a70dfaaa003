import type { OwnedDatabase } from "@stillframe/db/client"
import type { Logger } from "@stillframe/runtime/logger"
import type { Problems } from "@stillframe/runtime/problems"
import type { Place } from "@stillframe/storage/places/place"
import type { CompressionWorkerConfig } from "./config.ts"
import type { StallGuard } from "./stall-guard.ts"

/** Dependencies of the handlers of one compression-worker. */
export interface Worker {
  readonly config: CompressionWorkerConfig
  /** `STORAGE_DIR`. */
  readonly pool: Place
  readonly db: OwnedDatabase
  /** Tells publisher and numberer that a commit left them something. */
  readonly committed: () => void
  readonly log: Logger
  /** Goes out with each heartbeat. */
  readonly problems: Problems
  /** All work on files of an operation goes through it. */
  readonly guard: StallGuard
}
