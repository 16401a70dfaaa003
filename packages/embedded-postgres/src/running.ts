import { readFile, rm } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"

// A Postgres whose parent was killed needs a moment to notice, and then some time for its last checkpoint.
const NOTICE_MS = 1_000
const STOPPING_MS_MAX = 60_000
const POLL_MS = 20

/**
 * Returns when no Postgres runs on `data`; one that is about to end is waited for. Throws `conflict` with the
 * pid of one that stays.
 */
export async function waitUntilFree(data: string, signal?: AbortSignal): Promise<void> {
  const startedMs = performance.now()
  for (;;) {
    const running = await runningPostgres(data)
    if (running === undefined) return
    const waitedMs = performance.now() - startedMs
    if (waitedMs > (running.stopping ? STOPPING_MS_MAX : NOTICE_MS)) {
      throw new StillframeError(
        "conflict",
        `${data} is in use by process ${running.pid}: stop the Stillframe that runs there, or set another DATA_DIR`,
      )
    }
    await delay(POLL_MS, undefined, { signal })
  }
}

export function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (problem) {
    return (problem as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** The port of the last start while nobody else has it, else any free one; on 127.0.0.1. */
export async function choosePort(data: string): Promise<number> {
  const options = await readFile(join(data, "postmaster.opts"), "utf8").catch(() => "")
  const last = Number(/"-p" "(\d+)"/.exec(options)?.[1] ?? 0)
  return (await freePort(last)) ?? (await freePort(0)) ?? last
}

/** `port` itself, or any where it is 0; undefined where somebody listens on it. */
export async function freePort(port: number): Promise<number | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<number | undefined>()
  const server = createServer()
  server.once("error", (problem: NodeJS.ErrnoException) =>
    problem.code === "EADDRINUSE" ? resolve(undefined) : reject(problem),
  )
  server.listen({ port, host: "127.0.0.1", exclusive: true }, () => {
    const address = server.address()
    server.close(() => resolve(typeof address === "object" ? address?.port : undefined))
  })
  return promise
}

/** The process that holds `data`, or held it when its machine went down. */
export async function postmasterPid(data: string): Promise<number | undefined> {
  return (await readPidFile(data))?.pid
}

/** Lines of postmaster.pid: 1 the pid, 8 the status (Postgres, src/include/utils/pidfile.h). */
async function readPidFile(data: string): Promise<{ pid: number; stopping: boolean } | undefined> {
  const lines = (await readFile(join(data, "postmaster.pid"), "utf8").catch(() => "")).split("\n")
  const pid = Number.parseInt(lines[0] ?? "", 10)
  return Number.isInteger(pid) ? { pid, stopping: lines[7]?.trim() === "stopping" } : undefined
}

async function runningPostgres(data: string): Promise<{ pid: number; stopping: boolean } | undefined> {
  const found = await readPidFile(data)
  if (found === undefined || !isAlive(found.pid)) return undefined
  if (!(await isPostgresOn(found.pid, data))) {
    // Left by a machine or container that went down; Postgres itself refuses to start while that pid lives as
    // anything.
    await rm(join(data, "postmaster.pid"), { force: true })
    return undefined
  }
  return found
}

async function isPostgresOn(pid: number, data: string): Promise<boolean> {
  if (process.platform !== "linux") return true
  const words = (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).split("\0")
  return words.includes(data)
}
