import { join } from "node:path"
import { configFromEnv as apiConfig, type ApiConfig } from "@stillframe/api/config"
import { startApi } from "@stillframe/api/start"
import { configFromEnv as captureConfig } from "@stillframe/capture-worker/config"
import { sweepHost } from "@stillframe/capture-worker/pause/host-sweep"
import { startCaptureWorker } from "@stillframe/capture-worker/start"
import { configFromEnv as compressionConfig } from "@stillframe/compression-worker/config"
import { startCompressionWorker } from "@stillframe/compression-worker/start"
import { openMigrated } from "@stillframe/db/open"
import { configFromEnv as dispatcherConfig } from "@stillframe/dispatcher/config"
import { startDispatcher } from "@stillframe/dispatcher/start"
import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { useQueueEngine } from "@stillframe/queue/engine"
import { parseEnv, type Env } from "@stillframe/runtime/env"
import type { Logger } from "@stillframe/runtime/logger"
import { queueLog } from "@stillframe/runtime/queue-log"
import { secretFile } from "@stillframe/runtime/secrets"
import { storageSettings } from "@stillframe/runtime/settings"
import { writeDurably } from "@stillframe/storage/durable"
import { inOwnDirectory, isFull } from "@stillframe/storage/own-directory"
import { openDataDir } from "@stillframe/storage/places/data-dir"
import { mintToken } from "../token.ts"
import { installImages } from "./install-images.ts"
import { assertSettings } from "./settings.ts"

/** All four processes in one, on one machine. */
export interface Stack extends AsyncDisposable {
  readonly url: string
  readonly dataDir: string
  /** Holds a token that may do everything, for 30 days from this start. */
  readonly tokenFile: string
}

const tokenLifetimeSeconds = 30 * 24 * 3_600
const loopback = "127.0.0.0/8,::1/128"

/**
 * Starts whatever is not configured: Postgres, secrets, images; then the API and the three workers in this
 * process. Throws a `StillframeError` whose message says what to do.
 */
export async function startStack(env: Env, log: Logger, stopping?: AbortSignal): Promise<Stack> {
  assertSettings(env)
  await using resources = new AsyncDisposableStack()
  const { DATA_DIR: dataDir, STORAGE_DIR: storageDir = join(dataDir, "storage") } = parseEnv(
    storageSettings,
    env,
  )
  await openDataDir({ dataDir, storageDir })
  // Before anything that takes time: an earlier stack may have died while it had a VM paused.
  await sweepHost(dataDir, log)
  const left = await installImages(join(dataDir, "images"))
  if (left.length > 0) log.warn({ images: left }, "built-in guests left out: the disk of DATA_DIR is full")

  const own = await inOwnDirectory("DATA_DIR", dataDir, () =>
    ownServices(resources, { env, dataDir, log, stopping }),
  )
  const settings: Env = { WEBHOOK_ALLOWED_CIDRS: loopback, ...env, ...own.settings }
  const api = apiConfig(settings)
  const tokenFile = join(dataDir, "token")
  await writeToken(tokenFile, await mintToken(api.jwtSecret, tokenLifetimeSeconds), log)

  // One pool and one queue for all four: a small Postgres has few connections.
  const database = await openMigrated(resources, { ...api, log })
  const ofApi = { ...api, databaseProblem: own.databaseProblem }
  // The port is taken first, so that one which is in use ends the start at once; calls are served when all is
  // up.
  const up = Promise.withResolvers<void>()
  const { url, port } = resources.use(
    await startApi(ofApi, log.child({ part: "api" }), { ready: up.promise, database }),
  )
  // Known only now if any free one was asked for; webhooks never reach it.
  const dispatcher = dispatcherConfig({ ...settings, PORT: String(port) })
  const engine = await useQueueEngine(resources, {
    redisUrl: dispatcher.redisUrl,
    databaseUrl: dispatcher.databaseDirectUrl,
    ...queueLog(log, dispatcher.redisUrl),
  })
  const shared = { database, engine }
  resources.use(await startDispatcher(dispatcher, log.child({ part: "dispatcher" }), shared))
  const compression = compressionConfig(settings)
  resources.use(await startCompressionWorker(compression, log.child({ part: "compression-worker" }), shared))
  const capture = captureConfig(settings)
  resources.use(await startCaptureWorker(capture, log.child({ part: "capture-worker" }), shared))
  up.resolve()
  const started = resources.move()
  return { url, dataDir, tokenFile, [Symbol.asyncDispose]: () => started.disposeAsync() }
}

/** A full disk leaves the token of an earlier start as it is. */
async function writeToken(file: string, token: string, log: Logger): Promise<void> {
  await writeDurably(file, token).catch((error: Error) => {
    if (!isFull(error)) throw error
    log.warn(
      { reason: error.message },
      "no new token written: the disk is full; `stillframe token` prints one",
    )
  })
}

interface OwnServices {
  readonly settings: Env
  readonly databaseProblem?: ApiConfig["databaseProblem"]
}

/** Starts an embedded database with secrets of its own if the caller configured none. */
async function ownServices(
  resources: AsyncDisposableStack,
  {
    env,
    dataDir,
    log,
    stopping,
  }: { env: Env; dataDir: string; log: Logger; stopping: AbortSignal | undefined },
): Promise<OwnServices> {
  if (env["DATABASE_URL"] !== undefined) return { settings: {} }
  const postgres = resources.use(
    await startEmbeddedPostgres({
      dataDir: join(dataDir, "postgres"),
      password: await secretFile(join(dataDir, "postgres-password")),
      keep: { log: log.child({ part: "postgres" }) },
      ...(stopping !== undefined && { signal: stopping }),
    }),
  )
  const settings = {
    DATABASE_URL: postgres.url,
    JWT_SECRET: env["JWT_SECRET"] ?? (await secretFile(join(dataDir, "jwt-secret"))),
    SECRETS_KEY: env["SECRETS_KEY"] ?? (await secretFile(join(dataDir, "secrets-key"))),
  }
  return { settings, databaseProblem: postgres.diskProblem }
}
