import { access } from "node:fs/promises"
import { join } from "node:path"
import { fileError } from "@stillframe/codec/frames/files"
import { openMigrated } from "@stillframe/db/open"
import { StillframeError } from "@stillframe/domain/errors"
import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { parseEnv, processEnv, type Env } from "@stillframe/runtime/env"
import { createLogger } from "@stillframe/runtime/logger"
import { secretFile } from "@stillframe/runtime/secrets"
import { databaseSettings, hostSettings, storageSettings } from "@stillframe/runtime/settings"
import { initHome, initPool } from "./init-place.ts"
import { printLine } from "./print-line.ts"

export interface StorageInitOptions {
  readonly host?: boolean
  readonly replaceLost?: boolean
}

const settings = {
  DATABASE_URL: databaseSettings.DATABASE_URL.optional(),
  DATABASE_DIRECT_URL: databaseSettings.DATABASE_DIRECT_URL,
  ...storageSettings,
  ...hostSettings,
}

/**
 * `storage init`: says that STORAGE_DIR, or with `--host` DATA_DIR, is the right directory though the
 * database means another.
 */
export async function storageInit({ host = false, replaceLost = false }: StorageInitOptions): Promise<void> {
  try {
    await printLine(await init(processEnv(), { host, replaceLost }))
  } catch (error) {
    const failure = fileError(error)
    if (!(failure instanceof StillframeError)) throw error
    console.error(failure.message)
    process.exitCode = 1
  }
}

async function init(env: Env, { host, replaceLost }: Required<StorageInitOptions>): Promise<string> {
  const set = parseEnv(settings, env)
  await using resources = new AsyncDisposableStack()
  const databaseUrl = set.DATABASE_URL ?? (await ownPostgres(resources, set.DATA_DIR))
  const log = createLogger({ service: "storage-init", level: "warn" })
  const databaseDirectUrl = set.DATABASE_DIRECT_URL ?? databaseUrl
  const { db } = await openMigrated(resources, { databaseUrl, databaseDirectUrl, log })
  if (host) return await initHome(db, { dir: set.DATA_DIR, name: set.HOST_NAME, replaceLost })
  const dir = set.STORAGE_DIR ?? join(set.DATA_DIR, "storage")
  return await initPool(db, { dir, name: set.STORAGE_POOL, replaceLost })
}

/** The database of `npm start`, which must not run meanwhile. */
async function ownPostgres(resources: AsyncDisposableStack, dataDir: string): Promise<string> {
  const dir = join(dataDir, "postgres")
  await access(dir).catch((cause: unknown) => {
    const message = `there is no database in ${dir}; set DATA_DIR or DATABASE_URL to those of the installation`
    throw new StillframeError("invalid_request", message, { cause })
  })
  const password = await secretFile(join(dataDir, "postgres-password"))
  return resources.use(await startEmbeddedPostgres({ dataDir: dir, password })).url
}
