import type { OwnedDatabase } from "@stillframe/db/client"
import type { Logger } from "@stillframe/runtime/logger"
import type { CompressionWorkerConfig } from "./config.ts"

/** What the handlers of one compression-worker work with. */
export interface Worker {
  readonly config: CompressionWorkerConfig
  readonly db: OwnedDatabase
  /** Tells publisher and numberer that a commit left them something. */
  readonly committed: () => void
  readonly log: Logger
}
