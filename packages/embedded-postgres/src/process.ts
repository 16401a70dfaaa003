import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { type FileHandle, open, rename, stat } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"
import { childEnv } from "@stillframe/domain/child-env"
import { StillframeError } from "@stillframe/domain/errors"
import pg from "pg"
import type { Cluster } from "./cluster.ts"
import { postmasterPid } from "./running.ts"

export const USER = "stillframe"
export const DATABASE = "stillframe"
const CONNECTIONS_MAX = 200
// Crash recovery replays up to a checkpoint's distance of log before the first connection is accepted.
const READY_MS_MAX = 120_000
const READY_POLL_MS = 10
const STOP_MS_MAX = 20_000
const LOG_BYTES_MAX = 10_000_000
const LOG_TAIL_BYTES = 2_000

export interface ProcessOptions {
  readonly dataDir: string
  readonly port: number
  readonly password: string
  readonly sync: boolean
  readonly maxConnections?: number | undefined
  readonly logFile: string
  readonly signal?: AbortSignal | undefined
}

export interface PostgresProcess {
  readonly child: ChildProcess
  /** Resolves, with the reason in Postgres's own words, when it has ended. */
  readonly ended: Promise<string>
}

/**
 * Starts one Postgres and resolves when it answers. Throws the reason, with nothing left running, when it
 * does not.
 */
export async function startPostgresProcess(
  cluster: Cluster,
  options: ProcessOptions,
): Promise<PostgresProcess> {
  await using log = await openLog(options.logFile)
  const { size: before } = await log.stat()
  const child = spawnPostgres(cluster, options, log)
  const exit = once(child, "close")
  try {
    await untilReady(child, cluster.data, options)
  } catch (problem) {
    await stopPostgresProcess(child)
    options.signal?.throwIfAborted()
    if (problem instanceof StillframeError) throw problem
    const reason = problem instanceof Error ? problem.message : String(problem)
    const message = `Postgres did not start on port ${options.port}: ${reason}. The end of ${options.logFile}: ${await tail(log, before)}`
    throw new StillframeError("unavailable", message, { cause: problem })
  }
  const ended = exit.then(() => reasonOfEnd(child, options.logFile, before))
  return { child, ended }
}

function spawnPostgres(cluster: Cluster, options: ProcessOptions, log: FileHandle): ChildProcess {
  const settings = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    max_connections: options.maxConnections ?? CONNECTIONS_MAX,
    password_encryption: "scram-sha-256",
    log_checkpoints: "off",
    ...(!options.sync ? { fsync: "off", synchronous_commit: "off", full_page_writes: "off" } : {}),
  }
  const words = [
    ...cluster.account.words,
    cluster.binaries.postgres,
    "-D",
    cluster.data,
    "-p",
    String(options.port),
  ]
  for (const [name, value] of Object.entries(settings)) words.push("-c", `${name}=${value}`)
  // Not in our folder: `nobody` may not be allowed to be there. A session of its own: a Ctrl-C in a terminal
  // would stop it before those that still write to it.
  const stdio = ["ignore", log.fd, log.fd] as const
  const child = spawn(words[0] ?? "", words.slice(1), {
    cwd: "/",
    env: childEnv(),
    stdio: [...stdio],
    detached: true,
  })
  child.on("error", () => {
    // No process: `pid` is undefined, which untilReady() reports.
  })
  return child
}

async function untilReady(child: ChildProcess, data: string, options: ProcessOptions): Promise<void> {
  const deadlineMs = performance.now() + READY_MS_MAX
  for (;;) {
    options.signal?.throwIfAborted()
    if (child.pid === undefined || !isRunning(child)) throw new Error("it ended at once")
    try {
      // Two starts at once choose the same port, and the loser's would be answered by the winner's Postgres.
      if ((await postmasterPid(data)) === child.pid) return await makeDatabase(options.port, options.password)
    } catch (problem) {
      const { code } = problem as NodeJS.ErrnoException
      if (code === "28P01") {
        throw new StillframeError(
          "invalid_request",
          `The password is not the one that ${options.dataDir} was made with: put back its secret file, or start with a new data directory`,
          { cause: problem },
        )
      }
      // Refused: not listening yet. 57P03: still replaying its log.
      if (code !== "ECONNREFUSED" && code !== "57P03") throw problem
    }
    if (performance.now() > deadlineMs) throw new Error(`it did not answer in ${READY_MS_MAX / 1_000} s`)
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

/**
 * SIGINT: Postgres's fast shutdown, with a checkpoint. SIGQUIT: without one, so that the next start replays
 * the log.
 */
export async function stopPostgresProcess(child: ChildProcess): Promise<void> {
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

/** `from`: the size of the log before that start. */
async function tail(log: FileHandle, from: number): Promise<string> {
  const { size } = await log.stat()
  const start = Math.max(0, from, size - LOG_TAIL_BYTES)
  const { buffer, bytesRead } = await log.read(Buffer.alloc(size - start), 0, size - start, start)
  return buffer.toString("utf8", 0, bytesRead).trim()
}

async function reasonOfEnd(child: ChildProcess, logFile: string, from: number): Promise<string> {
  const how = child.signalCode ?? `status ${child.exitCode}`
  try {
    await using log = await open(logFile, "r")
    const panic = /PANIC: .*/.exec(await tail(log, from))?.[0]
    return panic === undefined ? how : `${how}, ${panic}`
  } catch {
    // The log was removed: how it ended is known all the same.
    return how
  }
}
