import type { Socket } from "node:net"
import { StillframeError } from "@stillframe/domain/errors"
import { connectIn } from "../../process/connect-in.ts"
import type { SocketKind } from "../../process/own-socket.ts"
import { logHasWhy } from "../../refusal.ts"
import { lineBytesMax, readLines } from "./qmp-lines.ts"

/**
 * Answers that grow with the VM: 16 disks of hundreds of layers, 255 processors, and the types that a QEMU
 * has.
 */
const answerBytesMax: Readonly<Record<string, number>> = {
  "query-block": 4 * 1024 ** 2,
  "query-named-block-nodes": 4 * 1024 ** 2,
  "query-cpus-fast": 1024 ** 2,
  "query-qmp-schema": 1024 ** 2,
  "qom-list": 1024 ** 2,
}
/** The part of QEMU's own words that the log keeps. */
const saidMax = 2_000
/** A busy main loop answers late; the greeting of a free monitor takes milliseconds. */
const GREETING_TIMEOUT_MS = 5000
const COMMAND_TIMEOUT_MS = 30_000

/** An asynchronous event as QEMU sends it; `timestamp` is the host's wall clock. */
export interface QmpEvent {
  event: string
  data?: Record<string, unknown>
  timestamp: { seconds: number; microseconds: number }
}

/** One QMP connection. QEMU serves one client per monitor, so whoever holds this keeps all others out. */
export interface Monitor {
  /** Exact version from the greeting, for example `7.2.22`. */
  readonly version: string
  /**
   * Sends one command and resolves with its `return`. Throws `hypervisor_failed` with QEMU's own words in
   * `said`, `hypervisor_gone` when the socket closes, `hypervisor_untrusted` when QEMU breaks the protocol,
   * and `timeout` when no answer came: then the command may have run.
   */
  execute<T = unknown>(command: string, args?: object, timeoutMs?: number): Promise<T>
  /** Calls back for each event until the returned function is called. */
  subscribe(listener: (event: QmpEvent) => void): () => void
  /**
   * Resolves once when the connection has ended, by either side: with `hypervisor_untrusted` when QEMU broke
   * the protocol.
   */
  readonly closed: Promise<StillframeError | undefined>
  close(): void
}

interface Answer {
  id?: number
  return?: unknown
  error?: { desc?: unknown }
}

type Message = { QMP?: { version: QemuVersion } } & Partial<QmpEvent> & Answer

interface Pending {
  resolve(value: unknown): void
  reject(error: Error): void
  command: string
}

/**
 * Connects to a QMP socket, reads the greeting and leaves negotiation mode. `answerMs`: how long a command's
 * answer is waited for. Throws `hypervisor_gone` when nobody listens, `hypervisor_silent` when QEMU hangs or
 * another program holds the monitor, and `hypervisor_untrusted` when the peer breaks the protocol or the
 * socket is not the VM's own.
 */
export async function openMonitor(
  directory: string,
  socketName: string,
  { answerMs = COMMAND_TIMEOUT_MS, kind }: { answerMs?: number | undefined; kind?: SocketKind } = {},
): Promise<Monitor> {
  const socket = await connectIn(directory, socketName, kind)
  const pending = new Map<number, Pending>()
  const listeners = new Set<(event: QmpEvent) => void>()
  const greeting = Promise.withResolvers<string>()
  let nextId = 1

  readLines(socket, {
    bytesMax: () => longestAwaited(pending),
    onLine: (line) => {
      if (line.trim() === "") return false
      const message = JSON.parse(line) as Message
      if (message.QMP !== undefined) greeting.resolve(versionText(message.QMP.version))
      else if (message.event !== undefined) for (const listener of listeners) listener(message as QmpEvent)
      else return settle(pending, message)
      return false
    },
  })
  let breach: StillframeError | undefined
  const closed = endOf(socket, (error) => {
    breach = error
    for (const waiting of pending.values())
      waiting.reject(breach ?? gone(`before it answered ${waiting.command}`))
    pending.clear()
    greeting.reject(breach ?? gone("before its greeting"))
  })

  const execute = async <T>(command: string, args?: object, timeoutMs = answerMs): Promise<T> => {
    if (socket.destroyed) throw breach ?? gone(`before ${command}`)
    const id = nextId++
    const answer = Promise.withResolvers<unknown>()
    pending.set(id, { resolve: answer.resolve, reject: answer.reject, command })
    const timer = setTimeout(() => {
      pending.delete(id)
      answer.reject(
        new StillframeError(
          "timeout",
          `QEMU gave no answer to ${command} in ${timeoutMs} ms; look at its qemu.log`,
        ),
      )
    }, timeoutMs)
    socket.write(`${JSON.stringify({ execute: command, ...(args && { arguments: args }), id })}\n`)
    try {
      return (await answer.promise) as T
    } finally {
      clearTimeout(timer)
    }
  }

  try {
    const version = await greetingInTime(greeting.promise, socketName)
    await execute("qmp_capabilities")
    return {
      version,
      execute,
      subscribe: (listener) => {
        listeners.add(listener)
        return () => listeners.delete(listener)
      },
      closed,
      close: () => socket.destroy(),
    }
  } catch (error) {
    socket.destroy()
    throw error
  }
}

/** Opens a monitor, hands it to `use` and closes it whatever happens. */
export async function withMonitor<T>(
  directory: string,
  socketName: string,
  use: (monitor: Monitor) => Promise<T>,
): Promise<T> {
  const monitor = await openMonitor(directory, socketName)
  try {
    return await use(monitor)
  } finally {
    monitor.close()
  }
}

interface QemuVersion {
  qemu: { major: number; minor: number; micro: number }
}

const versionText = ({ qemu }: QemuVersion): string => `${qemu.major}.${qemu.minor}.${qemu.micro}`

const gone = (when: string): StillframeError =>
  new StillframeError("hypervisor_gone", `QEMU closed its monitor ${when}; its qemu.log may say why`)

function longestAwaited(pending: ReadonlyMap<number, Pending>): number {
  const awaited = [...pending.values()].map(({ command }) => answerBytesMax[command] ?? lineBytesMax)
  return Math.max(lineBytesMax, ...awaited)
}

/** False for an answer that nothing waits for. */
function settle(pending: Map<number, Pending>, answer: Answer): boolean {
  const waiting = pending.get(answer.id ?? 0)
  // An answer after its time-out: the caller was told "unknown" and has moved on.
  if (waiting === undefined) return false
  pending.delete(answer.id ?? 0)
  if (answer.error === undefined) waiting.resolve(answer.return)
  else
    waiting.reject(
      new StillframeError("hypervisor_failed", `QEMU refused ${waiting.command}; ${logHasWhy}`, {
        said: String(answer.error.desc).slice(0, saidMax),
      }),
    )
  return true
}

/** Not `events.once`, which would reject on the error that comes before the close. */
async function endOf(
  socket: Socket,
  onEnd: (breach: StillframeError | undefined) => void,
): Promise<StillframeError | undefined> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let breach: StillframeError | undefined
  // An error of the connection itself says no more than its close.
  socket.once("error", (error) => (breach = error instanceof StillframeError ? error : undefined))
  socket.once("close", () => resolve())
  await promise
  onEnd(breach)
  return breach
}

async function greetingInTime(greeting: Promise<string>, socketName: string): Promise<string> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    late.reject(
      new StillframeError(
        "hypervisor_silent",
        `${socketName} accepted but sent no greeting: another program holds the VM's only monitor connection, or QEMU is stopped or hangs; end that program, or continue QEMU`,
      ),
    )
  }, GREETING_TIMEOUT_MS)
  try {
    return await Promise.race([greeting, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
