import { fork, type ChildProcess } from "node:child_process"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { processEnv } from "@stillframe/runtime/env"
import type { Logger } from "@stillframe/runtime/logger"

const program = join(import.meta.dirname, "log-keeper.ts")
const restartMs = 1_000
const looksPerPatience = 10

/** An abstract socket: whose it is keeps the logs of this directory's VMs. */
export const logKeeperSocket = (dataDir: string): string =>
  `\0stillframe-logs/${createHash("sha256").update(dataDir).digest("hex")}`

/** Messages of a keeper to its worker. */
export type KeeperWord = { readonly kind: "progress" } | { readonly kind: "trouble"; readonly reason: string }

export interface LogKeeping {
  readonly dataDir: string
  readonly logBytesMax: number
  /** A keeper that is not heard of for this long is ended; 10 s unless told otherwise. */
  readonly keeperPatienceMs?: number
}

/**
 * Keeps a process at work that bounds the logs of this host's VMs: one that ends or hangs is replaced.
 * Disposing of it leaves the process to the VMs that live on.
 */
export function startLogKeeper(
  { dataDir, logBytesMax, keeperPatienceMs = 10_000 }: LogKeeping,
  log: Logger,
): Disposable {
  let disposed = false
  let keeper: ChildProcess | undefined
  let soon: NodeJS.Timeout | undefined
  // Looks and not time: a worker that stood still itself has not heard of its keeper either.
  let looksUnheard = 0
  const start = (): void => {
    looksUnheard = 0
    keeper = fork(program, [dataDir, String(logBytesMax), String(keeperPatienceMs)], {
      detached: true,
      cwd: "/",
      env: { PATH: "/usr/local/bin:/usr/bin:/bin", NODE_COMPILE_CACHE: processEnv()["NODE_COMPILE_CACHE"] },
      execArgv: ["--max-semi-space-size=1"],
      // A reader of the worker's output would wait for the end of the last VM.
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    })
    keeper.on("message", (message) => {
      looksUnheard = 0
      const word = message as KeeperWord
      if (word.kind === "trouble") log.error({ reason: word.reason }, "logs of vms not bounded")
    })
    keeper.on("error", (err) => log.error({ err }, "log keeper"))
    keeper.once("exit", (status) => {
      if (disposed) return
      log.error({ status }, "log keeper ended; starting another one")
      soon = setTimeout(start, restartMs)
    })
  }
  const look = (): void => {
    looksUnheard += 1
    if (looksUnheard <= looksPerPatience || keeper?.pid === undefined) return
    looksUnheard = 0
    log.error({ pid: keeper.pid }, "log keeper hangs; ending it")
    keeper.kill("SIGKILL")
  }
  start()
  const looks = setInterval(look, keeperPatienceMs / looksPerPatience)
  looks.unref()
  return {
    [Symbol.dispose]() {
      disposed = true
      clearInterval(looks)
      clearTimeout(soon)
      keeper?.unref()
      if (keeper?.connected === true) keeper.disconnect()
    },
  }
}
