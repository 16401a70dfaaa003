import { accessSync, constants, statSync } from "node:fs"
import { algorithms, compressionMistake, type CompressionConfig } from "@stillframe/domain/compression"
import type { Problem } from "@stillframe/domain/problem"
import { assertReadable, parseEnv, SettingsError, type Env } from "@stillframe/runtime/env"
import {
  databaseSettings,
  logSettings,
  addressRanges,
  secretSettings,
  webhookSettings,
  wholeNumber,
} from "@stillframe/runtime/settings"
import type { Resolve } from "@stillframe/runtime/webhook-addresses"
import { z } from "zod"
import type { RateLimits } from "./access/limit-rates.ts"
import { defaultCaptureLimits, type CaptureLimits } from "./snapshots/capture-limits.ts"
import type { WebhookLimits } from "./webhooks/limits.ts"

export interface ApiConfig {
  readonly databaseUrl: string
  /** For LISTEN, where `databaseUrl` is a transaction-mode pooler. */
  readonly databaseDirectUrl: string
  /** Most connections of the pool. */
  readonly databaseConnections?: number | undefined
  readonly listenHost: string
  /** 0: any free one. */
  readonly port: number
  readonly jwtSecret: string
  /** The secret before a rotation: its tokens are good too. */
  readonly jwtSecretPrevious?: string | undefined
  /** Refuses tokens without `exp`. */
  readonly jwtRequireExp?: boolean
  /** Has the ids of revoked tokens, one on each line. */
  readonly jwtRevokedFile?: string | undefined
  readonly secretsKey: string
  /** Networks that webhooks may reach beside public addresses. */
  readonly webhookAllowedCidrs: readonly string[]
  /** The default for requests and instances that set none. */
  readonly compression: CompressionConfig
  readonly snapshotCreate: "async" | "sync"
  /** `defaultCaptureLimits` where it is absent. */
  readonly openCaptures?: CaptureLimits
  readonly twinWaitMs: number
  readonly hostLookMs?: number | undefined
  /** Why nothing new may be created at present, where this process knows the database's disk. */
  readonly databaseProblem?: (() => Problem | undefined) | undefined
  readonly streamHeartbeatMs: number
  /** Absent: no limits. */
  readonly limits?: RateLimits
  /** Absent: no limits. */
  readonly webhookLimits?: WebhookLimits
  /** The ranges of proxies whose `X-Forwarded-For` is believed; none where it is absent. */
  readonly trustedProxies?: readonly string[]
  /** How long an answer of `/ready` may be given again; 0 where it is absent. */
  readonly readyCacheMs?: number
  /** Resolves the names of webhooks' receivers instead of the system. Tests only. */
  readonly resolve?: Resolve
  /** A connection that carries no request is kept this long; Node's own 5 s where it is absent. */
  readonly keepAliveMs?: number
  /** A request must have arrived whole within this time. Tests only. */
  readonly requestMs?: number
}

/** Throws one `SettingsError` that lists every mistake. */
export function configFromEnv(env: Env): ApiConfig {
  assertReadable(
    () => parseEnv(settingsOfApi, env),
    () => compressionFromEnv(env),
  )
  const settings = parseEnv(settingsOfApi, env)
  return {
    databaseUrl: settings.DATABASE_URL,
    databaseDirectUrl: settings.DATABASE_DIRECT_URL ?? settings.DATABASE_URL,
    databaseConnections: settings.DATABASE_CONNECTIONS,
    listenHost: settings.LISTEN_HOST,
    port: settings.PORT,
    jwtSecret: settings.JWT_SECRET,
    jwtSecretPrevious: settings.JWT_SECRET_PREVIOUS,
    jwtRequireExp: settings.JWT_REQUIRE_EXP === "true",
    jwtRevokedFile: settings.JWT_REVOKED_FILE,
    secretsKey: settings.SECRETS_KEY,
    webhookAllowedCidrs: settings.WEBHOOK_ALLOWED_CIDRS,
    compression: compressionFromEnv(env),
    snapshotCreate: settings.SNAPSHOT_CREATE,
    openCaptures: {
      perInstance: settings.OPEN_CAPTURES_PER_INSTANCE,
      perHost: settings.OPEN_CAPTURES_PER_HOST,
      perCaller: settings.OPEN_CAPTURES_PER_CALLER,
    },
    twinWaitMs: 10_000,
    streamHeartbeatMs: 15_000,
    limits: {
      perAddress: settings.ADDRESS_REQUESTS_PER_SECOND,
      perCaller: settings.CALLER_REQUESTS_PER_SECOND,
      streamsPerCaller: settings.CALLER_STREAMS,
    },
    webhookLimits: { perInstallation: settings.WEBHOOKS_MAX, perHost: settings.WEBHOOKS_PER_HOST },
    trustedProxies: settings.TRUSTED_PROXIES,
    readyCacheMs: 1_000,
    keepAliveMs: settings.KEEP_ALIVE_TIMEOUT * 1_000,
  }
}

const revokedFileRule =
  "must name a file that this process can read; make it, empty if no token is revoked, or change its rights"

function isReadable(path: string): boolean {
  try {
    accessSync(path, constants.R_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

const openCaptures = wholeNumber({ min: 1, max: 1_000_000 })

const settingsOfApi = {
  ...databaseSettings,
  ...logSettings,
  ...secretSettings,
  ...webhookSettings,
  JWT_SECRET_PREVIOUS: secretSettings.JWT_SECRET.optional(),
  JWT_REQUIRE_EXP: z.enum(["true", "false"], { error: "must be true or false" }).default("false"),
  JWT_REVOKED_FILE: z.string().refine(isReadable, revokedFileRule).optional(),
  PORT: wholeNumber({ min: 0, max: 65_535 }).default(8080),
  LISTEN_HOST: z.string().default("127.0.0.1"),
  // In seconds; load balancers keep theirs for 60.
  KEEP_ALIVE_TIMEOUT: wholeNumber({ min: 1, max: 3_600 }).default(75),
  // 0: no limit.
  ADDRESS_REQUESTS_PER_SECOND: wholeNumber({ min: 0, max: 1_000_000 }).default(20),
  CALLER_REQUESTS_PER_SECOND: wholeNumber({ min: 0, max: 1_000_000 }).default(100),
  CALLER_STREAMS: wholeNumber({ min: 0, max: 1_000_000 }).default(50),
  TRUSTED_PROXIES: addressRanges,
  WEBHOOKS_MAX: wholeNumber({ min: 1, max: 1_000_000 }).default(1_000),
  WEBHOOKS_PER_HOST: wholeNumber({ min: 1, max: 1_000_000 }).default(50),
  SNAPSHOT_CREATE: z.enum(["async", "sync"], { error: "must be async or sync" }).default("async"),
  OPEN_CAPTURES_PER_INSTANCE: openCaptures.default(defaultCaptureLimits.perInstance),
  OPEN_CAPTURES_PER_HOST: openCaptures.default(defaultCaptureLimits.perHost),
  OPEN_CAPTURES_PER_CALLER: openCaptures.default(defaultCaptureLimits.perCaller),
}

const compressionSettings = {
  COMPRESSION_ENABLED: z.enum(["true", "false"], { error: "must be true or false" }).default("false"),
  COMPRESSION_ALGORITHM: z
    .enum(algorithms, { error: `must be one of ${algorithms.join(", ")}` })
    .default("zstd"),
  COMPRESSION_LEVEL: wholeNumber({ min: 0, max: 19 }).optional(),
}

export const allSettings = { ...settingsOfApi, ...compressionSettings }

function compressionFromEnv(env: Env): CompressionConfig {
  const settings = parseEnv(compressionSettings, env)
  const compression: CompressionConfig = {
    enabled: settings.COMPRESSION_ENABLED === "true",
    algorithm: settings.COMPRESSION_ALGORITHM,
    level: settings.COMPRESSION_LEVEL,
  }
  const message = compressionMistake(compression)
  if (message !== undefined) throw new SettingsError([{ name: "COMPRESSION_LEVEL", message }])
  return compression
}
