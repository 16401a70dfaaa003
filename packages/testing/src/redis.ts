import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, readFile } from "node:fs/promises"
import { connect } from "node:net"
import { delimiter, join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { freePort } from "@stillframe/embedded-postgres/running"

// Where the set-up leaves redis-server if the machine has none.
const toolsBin = join(import.meta.dirname, "..", "..", "..", ".tools", "bin")
const READY_MS_MAX = 20_000
const READY_POLL_MS = 5
const STARTS_MAX = 3
const STOP_MS_MAX = 10_000

export interface Redis extends AsyncDisposable {
  readonly url: string
  readonly pid: number
  /** The data stay in `dir`. */
  stop(): Promise<void>
}

/**
 * A Redis of its own on a free loopback port, set as BullMQ wants it; it ends with the thread that started
 * it.
 */
export async function startRedis(options: {
  dir: string
  /** Settings of redis-server beside the usual ones, or in their place. */
  settings?: Readonly<Record<string, string>>
  signal?: AbortSignal
}): Promise<Redis> {
  await mkdir(options.dir, { recursive: true })
  for (let tried = 1; ; tried++) {
    const port = (await freePort(0)) ?? 0
    const child = spawnRedis(options.dir, port, options.settings)
    try {
      await untilReady(child, port, options.signal)
      let stopped: Promise<void> | undefined
      const stopOnce = (): Promise<void> => (stopped ??= stop(child))
      return {
        url: `redis://127.0.0.1:${port}`,
        pid: child.pid ?? 0,
        stop: stopOnce,
        [Symbol.asyncDispose]: stopOnce,
      }
    } catch (cause) {
      await stop(child)
      options.signal?.throwIfAborted()
      // Somebody may have had the port between the look and the start, and for that moment only.
      if (tried < STARTS_MAX) continue
      const log = await readFile(join(options.dir, "redis.log"), "utf8").catch(() => "no log")
      throw new StillframeError(
        "unavailable",
        `redis-server did not start: run \`npm test\`, which brings it, or install it. ${log.slice(-500)}`,
        { cause },
      )
    }
  }
}

function spawnRedis(dir: string, port: number, changes: Readonly<Record<string, string>> = {}): ChildProcess {
  const settings = {
    bind: "127.0.0.1",
    port: String(port),
    dir,
    appendonly: "yes",
    save: "",
    "maxmemory-policy": "noeviction",
    logfile: "redis.log",
    ...changes,
  }
  const words = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
  const program =
    process.platform === "linux" ? ["setpriv", "--pdeathsig", "TERM", "redis-server"] : ["redis-server"]
  const env = { ...process.env, PATH: [process.env["PATH"] ?? "", toolsBin].join(delimiter) }
  const child = spawn(program[0] ?? "", [...program.slice(1), ...words], { env, stdio: "ignore" })
  child.on("error", () => {
    // No process: `pid` is undefined, which untilReady() reports.
  })
  return child
}

async function untilReady(child: ChildProcess, port: number, signal: AbortSignal | undefined): Promise<void> {
  const deadlineMs = performance.now() + READY_MS_MAX
  while (!(await answers(port))) {
    if (child.pid === undefined || !isRunning(child)) throw new Error("it ended at once")
    if (performance.now() > deadlineMs) throw new Error("it did not answer")
    await delay(READY_POLL_MS, undefined, { signal })
  }
}

/** While it reads its files back it answers `-LOADING`. */
async function answers(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1")
  try {
    socket.write("PING\r\n")
    const [answer] = (await once(socket, "data")) as [Buffer]
    return /^(\+PONG|-NOAUTH)/.test(answer.toString())
  } catch {
    // Refused: not listening yet.
    return false
  } finally {
    socket.destroy()
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || !isRunning(child)) return
  const ended = once(child, "exit")
  child.kill("SIGTERM")
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS_MAX)
  await ended
  clearTimeout(timer)
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null
}
