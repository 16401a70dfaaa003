import { spawn, type ChildProcess } from "node:child_process"
import type { FileHandle } from "node:fs/promises"
import type { Socket } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { logHasWhy } from "../../refusal.ts"
import { copierVariable } from "./copiers.ts"

/** QEMU may report the broken pipe before we hear that the copier died. */
const FAILURE_WAIT_MS = 1000

/** A process that copies what comes in on a socket to a file. */
export interface Copier {
  /** Hands over the socket, which nobody has read from. It is kept until `start` is called. */
  take(socket: Socket): void
  /**
   * Lets the copying begin as soon as there is a socket. Returns when the process exists, which takes
   * milliseconds.
   */
  start(): void
  /** Ends the copying at once, or never begins it: whoever sends is told by its next write. */
  abandon(): void
  /**
   * Resolves when the socket has ended and all of it is in the file. Rejects with `insufficient_storage` or
   * `storage_failed`.
   */
  readonly copied: Promise<void>
  /** Resolves when no process is left. Never rejects. */
  gone(): Promise<void>
  /** Why the copying failed, if it did by itself. */
  failure(): Promise<unknown>
}

/** `dir` is that of the VM whose memory is copied. */
export function openCopier(place: { file: FileHandle; dir: string }): Copier {
  const copied = Promise.withResolvers<void>()
  // The waiter gets the error; this only keeps Node from ending the process before there is one.
  copied.promise.catch(() => {})
  let held: Socket | undefined
  let process: ChildProcess | undefined
  let wanted = false
  let abandoned = false
  const begin = (): void => {
    if (!wanted || held === undefined) return
    process = startCopying({ socket: held, ...place }, copied)
    held = undefined
  }
  return {
    copied: copied.promise,
    take(socket) {
      if (abandoned) return void socket.destroy()
      held = socket
      begin()
    },
    start() {
      wanted = true
      begin()
    },
    abandon() {
      abandoned = true
      held?.destroy()
      held = undefined
      process?.kill("SIGKILL")
    },
    async gone() {
      if (process !== undefined) await copied.promise.catch(() => {})
    },
    async failure() {
      if (process === undefined || abandoned) return undefined
      const reason = copied.promise.then(
        () => undefined,
        (error: unknown) => error,
      )
      return await Promise.race([reason, delay(FAILURE_WAIT_MS, undefined, { ref: false })])
    },
  }
}

function startCopying(
  { socket, file, dir }: { socket: Socket; file: FileHandle; dir: string },
  copied: PromiseWithResolvers<void>,
): ChildProcess {
  const copier = spawn("cat", [], {
    stdio: [socket, file.fd, "pipe"],
    // A Ctrl-C at the terminal goes to the whole session and must not end a save.
    detached: true,
    // In the C locale the reason below is always spelled the same.
    env: { LC_ALL: "C", PATH: "/usr/local/bin:/usr/bin:/bin", [copierVariable]: dir },
  })
  // Our end must go, or QEMU would never see the copier's death.
  socket.destroy()
  let complaint = ""
  copier.stderr?.setEncoding("utf8").on("data", (text: string) => (complaint += text))
  copier.once("error", (error) =>
    copied.reject(storageError(`the copying process could not start: ${error.message}`)),
  )
  copier.once("close", (status, signal) => {
    if (status === 0) copied.resolve()
    else copied.reject(storageError(complaint.trim() || `the copying process ended with ${signal ?? status}`))
  })
  return copier
}

function storageError(complaint: string): StillframeError {
  if (/No space left on device|Disk quota exceeded/.test(complaint)) {
    return new StillframeError(
      "insufficient_storage",
      "the disk became full while the memory was saved; free some space and try again",
    )
  }
  return new StillframeError(
    "storage_failed",
    `the memory could not be written to the storage pool; ${logHasWhy}`,
    { said: complaint },
  )
}
