import type { OwnedDatabase } from "@stillframe/db/client"
import type { Waker } from "@stillframe/db/connection/wake"
import type { CompressionConfig } from "@stillframe/domain/compression"
import type { Problem } from "@stillframe/domain/problem"
import type { Logger } from "@stillframe/runtime/logger"
import type { AddressRules, Resolve } from "@stillframe/runtime/webhook-addresses"
import type { TokenRules } from "../access/auth.ts"
import type { RateLimits } from "../access/limit-rates.ts"
import type { EventTail } from "../events/tail.ts"
import type { AdmitCapture } from "../snapshots/capture-limits.ts"
import type { WebhookLimits } from "../webhooks/limits.ts"
import type { Answered } from "./answered.ts"

/** Dependencies of the handlers. */
export interface ApiDeps {
  readonly db: OwnedDatabase
  readonly waker: Waker
  readonly log: Logger
  readonly jwtSecret: string
  readonly tokenRules?: TokenRules
  readonly secretsKey: string
  /** Addresses that webhooks may reach; the API's own port is known once it listens. */
  readonly webhookRules: () => AddressRules
  readonly resolve: Resolve
  readonly compression: CompressionConfig
  /** `sync`: an answer to a create is the point in time, for clients that take it as that. */
  readonly snapshotCreate: "async" | "sync"
  readonly answered: Answered
  readonly admitCapture: AdmitCapture
  /** How long a request waits for the commit of an earlier one with the same `Idempotency-Key`. */
  readonly twinWaitMs: number
  /**
   * How long an answer that is not held waits for the host's look at disks that may grow; 250 where absent.
   */
  readonly hostLookMs?: number | undefined
  readonly eventTail: EventTail
  /** Why nothing new may be created at present; undefined while there is room on the database's disk. */
  readonly databaseProblem?: (() => Problem | undefined) | undefined
  /** Absent: no limits. */
  readonly limits?: RateLimits | undefined
  /** Absent: no limits. */
  readonly webhookLimits?: WebhookLimits | undefined
  /** The ranges of proxies whose `X-Forwarded-For` is believed. */
  readonly trustedProxies?: readonly string[] | undefined
  /** How long an answer of `/ready` may be given again; 0 where it is absent. */
  readonly readyCacheMs?: number | undefined
  /** How often a stream shows that it lives. */
  readonly streamHeartbeatMs: number
  /** True until the rest of the process is up; only `/health` and `/ready` are answered until then. */
  readonly starting: () => boolean
  /** Aborted when the process is about to end: held answers are then given as if their time had run out. */
  readonly stopping: AbortSignal
}
