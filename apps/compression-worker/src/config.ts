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
  readonly redisUrl: string | undefined
  readonly storageDir: string
  readonly host: string
  readonly pool: string
  readonly threads: number
}

const settings = {
  ...databaseSettings,
  ...storageSettings,
  ...hostSettings,
  ...logSettings,
  COMPRESSION_THREADS: wholeNumber({ min: 1, max: 256 }).default(availableParallelism()),
}

export function configFromEnv(env: Env): CompressionWorkerConfig {
  const set = parseEnv(settings, env)
  return {
    databaseUrl: set.DATABASE_URL,
    databaseDirectUrl: set.DATABASE_DIRECT_URL ?? set.DATABASE_URL,
    redisUrl: set.REDIS_URL,
    storageDir: set.STORAGE_DIR ?? join(set.DATA_DIR, "storage"),
    host: set.HOST_NAME,
    pool: set.STORAGE_POOL,
    threads: set.COMPRESSION_THREADS,
  }
}
