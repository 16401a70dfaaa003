import { StillframeError } from "@stillframe/domain/errors"
import type { Problem } from "@stillframe/domain/problem"
import { type Cluster, openCluster } from "./cluster.ts"
import { keepRunning, type KeeperLog } from "./keeper.ts"
import {
  DATABASE,
  startPostgresProcess,
  stopPostgresProcess,
  USER,
  type PostgresProcess,
  type ProcessOptions,
} from "./process.ts"
import { openReserve, type DiskReserve } from "./reserve.ts"
import { choosePort, waitUntilFree } from "./running.ts"

const STARTS_MAX = 3

export interface EmbeddedPostgresOptions {
  /** Holds the cluster; made where it is absent. The data stay when Postgres is stopped. */
  readonly dataDir: string
  /** Default: the port of the last start if it is free, else any free one. */
  readonly port?: number
  /** The password of the one role, `stillframe`; as it was at the first start of this `dataDir`. */
  readonly password: string
  /** Default true. False gives up durability: for data that need not survive a crash. */
  readonly sync?: boolean
  readonly maxConnections?: number
  /** Default: `dataDir` + `.log`. */
  readonly logFile?: string
  /** Set: Postgres is started again whenever it ends by itself, and room is kept on its disk for deleting. */
  readonly keep?: { readonly log: KeeperLog }
  /** Ends the start, not what has been started. */
  readonly signal?: AbortSignal
}

export interface EmbeddedPostgres extends AsyncDisposable {
  /** The URL of the database `stillframe` on 127.0.0.1, with the password. */
  readonly url: string
  /** Another one after each start. */
  readonly pid: number
  /** With `keep`: why nothing new should be created at present. */
  readonly diskProblem: () => Problem | undefined
  /** Ends every connection and returns when Postgres has ended. */
  stop(): Promise<void>
}

/**
 * Starts the Postgres that npm installed and waits until it answers. It ends with the thread that started it,
 * however that ends (Linux). Throws `conflict` where another one runs on `dataDir`, `not_supported` where
 * another major version made it, `invalid_request` where the password is another one, `unavailable` where it
 * does not start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { dataDir, password, sync = true, signal, keep } = options
  const cluster = await openCluster({ dataDir, user: USER, password, sync, signal })
  await using opened = new AsyncDisposableStack()
  const reserve = keep && opened.use(openReserve({ file: `${cluster.data}-reserve`, log: keep.log }))
  await reserve?.look()
  const { process, settings } = await firstStart(cluster, options)
  const kept = keep
    ? keepRunning(process, {
        log: keep.log,
        again: (stopping) => startAgain(cluster, { ...settings, signal: stopping }, reserve),
      })
    : { pid: () => process.child.pid ?? 0, stop: () => stopPostgresProcess(process.child) }
  opened.defer(() => kept.stop())
  const running = opened.move()
  let stopped: Promise<void> | undefined
  const stop = (): Promise<void> => (stopped ??= running.disposeAsync())
  return {
    url: `postgres://${USER}:${encodeURIComponent(password)}@127.0.0.1:${settings.port}/${DATABASE}`,
    get pid() {
      return kept.pid()
    },
    diskProblem: () => reserve?.problem(),
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

async function firstStart(
  cluster: Cluster,
  options: EmbeddedPostgresOptions,
): Promise<{ process: PostgresProcess; settings: ProcessOptions }> {
  const { dataDir, password, maxConnections, sync = true, logFile = `${dataDir}.log`, signal } = options
  await waitUntilFree(cluster.data, signal)
  for (let tried = 1; ; tried++) {
    const port = options.port ?? (await choosePort(cluster.data))
    const settings = { dataDir, password, maxConnections, sync, logFile, signal, port }
    try {
      return { process: await startPostgresProcess(cluster, settings), settings }
    } catch (problem) {
      const mayPass = problem instanceof StillframeError && problem.code === "unavailable"
      if (!mayPass) throw problem
      await waitUntilFree(cluster.data, signal)
      // Another process may have had the port, or another start the data, for a moment.
      if (options.port !== undefined || tried === STARTS_MAX) throw problem
    }
  }
}

/** On the same port: the clients know no other. */
async function startAgain(
  cluster: Cluster,
  settings: ProcessOptions,
  reserve: DiskReserve | undefined,
): Promise<PostgresProcess> {
  await reserve?.look()
  await waitUntilFree(cluster.data, settings.signal)
  return startPostgresProcess(cluster, settings)
}
