import { parseEnv, type Env } from "@stillframe/runtime/env"
import {
  databaseSettings,
  logSettings,
  secretSettings,
  webhookSettings,
  wholeNumber,
} from "@stillframe/runtime/settings"
import { portsOf, type AddressRules } from "@stillframe/runtime/webhook-addresses"
import type { Lookup } from "./address-guard.ts"

export interface DispatcherConfig {
  readonly databaseUrl: string
  /** Reaches Postgres itself where `databaseUrl` is a transaction-mode pooler. */
  readonly databaseDirectUrl: string
  /** Most connections of the pool. */
  readonly databaseConnections?: number | undefined
  readonly redisUrl?: string | undefined
  /** Begins the keys in Redis; each test has its own. */
  readonly queuePrefix?: string | undefined
  readonly secretsKey: string
  readonly webhooks: AddressRules
  /** How long events are kept. */
  readonly eventRetentionMs: number
  /** Moves the database's clock: an interval such as `1 hour`. Tests only. */
  readonly clockOffset?: string | undefined
  /** How long an attempt at a delivery may take. Tests only. */
  readonly attemptMs?: number | undefined
  /** Resolves the names of receivers instead of the system. Tests only. */
  readonly lookup?: Lookup | undefined
}

export const settings = {
  ...databaseSettings,
  ...logSettings,
  SECRETS_KEY: secretSettings.SECRETS_KEY,
  ...webhookSettings,
  // In days.
  EVENT_RETENTION: wholeNumber({ min: 1, max: 36_500 }).default(30),
  // The API's port, if it runs on this machine: webhooks never reach it.
  PORT: wholeNumber({ min: 1, max: 65_535 }).default(8080),
}

/** Throws one error that names every mistake. */
export function configFromEnv(env: Env): DispatcherConfig {
  const values = parseEnv(settings, env)
  const { DATABASE_URL, DATABASE_DIRECT_URL, REDIS_URL } = values
  return {
    databaseUrl: DATABASE_URL,
    databaseDirectUrl: DATABASE_DIRECT_URL ?? DATABASE_URL,
    databaseConnections: values.DATABASE_CONNECTIONS ?? 5,
    redisUrl: REDIS_URL,
    secretsKey: values.SECRETS_KEY,
    eventRetentionMs: values.EVENT_RETENTION * dayMs,
    webhooks: {
      allowedCidrs: values.WEBHOOK_ALLOWED_CIDRS,
      stackPorts: [values.PORT, ...portsOf([DATABASE_URL, DATABASE_DIRECT_URL, REDIS_URL])],
    },
  }
}

const dayMs = 24 * 3_600_000
