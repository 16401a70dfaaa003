import { availableParallelism } from "node:os"
import { join } from "node:path"
import { parseEnv, type Env } from "@stillframe/runtime/env"
import {
  databaseSettings,
  hostSettings,
  logSettings,
  storageSettings,
  wholeNumber,
} from "@stillframe/runtime/settings"

export interface CompressionWorkerConfig {
  readonly databaseUrl: string
  readonly databaseDirectUrl: string
  /** Most connections of the pool. */
  readonly databaseConnections?: number | undefined
  readonly redisUrl: string | undefined
  readonly storageDir: string
  readonly host: string
  readonly pool: string
  readonly threads: number
  /**
   * A snapshot whose last verification is longer ago is verified again when nothing else is to be done; 0:
   * never.
   */
  readonly scrubIntervalMs: number
  /** How long work may make no progress. Absent: five minutes. */
  readonly stallMs?: number
}

const dayMs = 24 * 3_600_000

export const settings = {
  ...databaseSettings,
  ...storageSettings,
  ...hostSettings,
  ...logSettings,
  COMPRESSION_THREADS: wholeNumber({ min: 1, max: 256 }).default(availableParallelism()),
  SCRUB_DAYS: wholeNumber({ min: 0, max: 3_650 }).default(30),
}

export function configFromEnv(env: Env): CompressionWorkerConfig {
  const set = parseEnv(settings, env)
  return {
    databaseUrl: set.DATABASE_URL,
    databaseDirectUrl: set.DATABASE_DIRECT_URL ?? set.DATABASE_URL,
    databaseConnections: set.DATABASE_CONNECTIONS ?? 5,
    redisUrl: set.REDIS_URL,
    storageDir: set.STORAGE_DIR ?? join(set.DATA_DIR, "storage"),
    host: set.HOST_NAME,
    pool: set.STORAGE_POOL,
    threads: set.COMPRESSION_THREADS,
    scrubIntervalMs: set.SCRUB_DAYS * dayMs,
  }
}
