import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { type FileHandle, open, rename, stat } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import pg from "pg"
import { type Cluster, openCluster } from "./embedded-cluster.ts"
import { choosePort, waitUntilFree } from "./embedded-running.ts"

const USER = "stillframe"
const DATABASE = "stillframe"
const CONNECTIONS_MAX = 200
// Crash recovery replays up to a checkpoint's distance of log before the first connection is accepted.
const READY_MS_MAX = 120_000
const READY_POLL_MS = 10
const STOP_MS_MAX = 20_000
const STARTS_MAX = 3
const LOG_BYTES_MAX = 10_000_000
const LOG_TAIL_BYTES = 2_000

export interface EmbeddedPostgresOptions {
  /** Holds the cluster; made where it is absent. The data stay when Postgres is stopped. */
  readonly dataDir: string
  /** Default: the port of the last start if it is free, else any free one. */
  readonly port?: number
  /** Of the one role, `stillframe`; as it was at the first start of this `dataDir`. */
  readonly password: string
  /** Default true. False gives up durability: for data that need not survive a crash. */
  readonly sync?: boolean
  readonly maxConnections?: number
  /** Default: `dataDir` + `.log`. */
  readonly logFile?: string
  /** Ends the start, not what has been started. */
  readonly signal?: AbortSignal
}

export interface EmbeddedPostgres extends AsyncDisposable {
  /** Of the database `stillframe` on 127.0.0.1, with the password. */
  readonly url: string
  readonly pid: number
  /** Ends every connection and returns when Postgres has ended. */
  stop(): Promise<void>
}

/**
 * Starts the Postgres that npm installed and waits until it answers. It ends with the thread that started it, however
 * that ends (Linux). Throws `conflict` where another one runs on `dataDir`, `not_supported` where another major version
 * made it, `unavailable` where it does not start.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { dataDir, password, sync = true, signal } = options
  const cluster = await openCluster({ dataDir, user: USER, password, sync, signal })
  await waitUntilFree(cluster.data, signal)
  for (let tried = 1; ; tried++) {
    const port = options.port ?? (await choosePort(cluster.data))
    const logFile = options.logFile ?? `${dataDir}.log`
    const log = await openLog(logFile)
    const child = spawnPostgres(cluster, port, options, log)
    try {
      await untilReady(child, port, options)
      return running(child, port, password)
    } catch (problem) {
      await stop(child)
      signal?.throwIfAborted()
      if (problem instanceof StillframeError) throw problem
      await waitUntilFree(cluster.data, signal)
      // Between the look and the start somebody may have had the port, or another start the data, and for that moment only.
      if (options.port === undefined && tried < STARTS_MAX) continue
      throw new StillframeError(
        "unavailable",
        `Postgres did not start on port ${port}: ${problem instanceof Error ? problem.message : String(problem)}. The end of ${logFile}: ${await tail(log)}`,
        { cause: problem },
      )
    } finally {
      await log.close()
    }
  }
}

function spawnPostgres(
  cluster: Cluster,
  port: number,
  options: EmbeddedPostgresOptions,
  log: FileHandle,
): ChildProcess {
  const settings = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    max_connections: options.maxConnections ?? CONNECTIONS_MAX,
    password_encryption: "scram-sha-256",
    log_checkpoints: "off",
    ...(options.sync === false ? { fsync: "off", synchronous_commit: "off", full_page_writes: "off" } : {}),
  }
  const words = [...cluster.account.words, cluster.binaries.postgres, "-D", cluster.data, "-p", String(port)]
  for (const [name, value] of Object.entries(settings)) words.push("-c", `${name}=${value}`)
  // Not in our folder: `nobody` may not be allowed to be there.
  const child = spawn(words[0] ?? "", words.slice(1), { cwd: "/", stdio: ["ignore", log.fd, log.fd] })
  child.on("error", () => {
    // No process: `pid` is undefined, which untilReady() reports.
  })
  return child
}

async function untilReady(
  child: ChildProcess,
  port: number,
  options: EmbeddedPostgresOptions,
): Promise<void> {
  const deadlineMs = performance.now() + READY_MS_MAX
  for (;;) {
    options.signal?.throwIfAborted()
    if (child.pid === undefined || !isRunning(child)) throw new Error("it ended at once")
    try {
      return await makeDatabase(port, options.password)
    } catch (problem) {
      const { code } = problem as NodeJS.ErrnoException
      if (code === "28P01") {
        throw new StillframeError(
          "unavailable",
          `The password is not the one that ${options.dataDir} was made with: put back its secret file, or start with a new data directory`,
          { cause: problem },
        )
      }
      // Refused: not listening yet. 57P03: still replaying its log.
      if ((code !== "ECONNREFUSED" && code !== "57P03") || performance.now() > deadlineMs) throw problem
    }
    await delay(READY_POLL_MS)
  }
}

async function makeDatabase(port: number, password: string): Promise<void> {
  const client = new pg.Client({ host: "127.0.0.1", port, user: USER, password, database: "postgres" })
  // A connection that breaks is reported by the query that needs it.
  client.on("error", () => {})
  try {
    await client.connect()
    const found = await client.query("select 1 from pg_database where datname = $1", [DATABASE])
    if (found.rowCount === 0) await client.query(`create database ${DATABASE}`)
  } finally {
    await client.end()
  }
}

function running(child: ChildProcess, port: number, password: string): EmbeddedPostgres {
  let stopped: Promise<void> | undefined
  const stopOnce = (): Promise<void> => (stopped ??= stop(child))
  return {
    url: `postgres://${USER}:${encodeURIComponent(password)}@127.0.0.1:${port}/${DATABASE}`,
    pid: child.pid ?? 0,
    stop: stopOnce,
    [Symbol.asyncDispose]: stopOnce,
  }
}

/** SIGINT: Postgres's fast shutdown, with a checkpoint. SIGQUIT: without one, so that the next start replays the log. */
async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || !isRunning(child)) return
  const ended = once(child, "exit")
  child.kill("SIGINT")
  const timer = setTimeout(() => child.kill("SIGQUIT"), STOP_MS_MAX)
  await ended
  clearTimeout(timer)
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null
}

async function openLog(path: string): Promise<FileHandle> {
  // Absent, or not ours to look at: then opening it says so.
  const stats = await stat(path).catch(() => undefined)
  if ((stats?.size ?? 0) > LOG_BYTES_MAX) await rename(path, `${path}.1`)
  return open(path, "a+", 0o600)
}

async function tail(log: FileHandle): Promise<string> {
  const { size } = await log.stat()
  const start = Math.max(0, size - LOG_TAIL_BYTES)
  const { buffer, bytesRead } = await log.read(Buffer.alloc(size - start), 0, size - start, start)
  return buffer.toString("utf8", 0, bytesRead).trim()
}
