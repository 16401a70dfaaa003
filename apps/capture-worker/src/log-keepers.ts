import { fork, type ChildProcess } from "node:child_process"
import { createHash } from "node:crypto"
import { join } from "node:path"
import { processEnv } from "@stillframe/runtime/env"
import type { Logger } from "@stillframe/runtime/logger"

const program = join(import.meta.dirname, "log-keeper.ts")
const restartMs = 1_000

/** An abstract socket: whose it is keeps the logs of this directory's VMs. */
export const logKeeperSocket = (dataDir: string): string =>
  `\0stillframe-logs/${createHash("sha256").update(dataDir).digest("hex")}`

/** Keeps a process at work that bounds the logs of this host's VMs. Disposing of it leaves the process to the VMs that live on. */
export function startLogKeeper(
  { dataDir, logBytesMax }: { readonly dataDir: string; readonly logBytesMax: number },
  log: Logger,
): Disposable {
  let disposed = false
  let keeper: ChildProcess | undefined
  let soon: NodeJS.Timeout | undefined
  const start = (): void => {
    keeper = fork(program, [dataDir, String(logBytesMax)], {
      detached: true,
      cwd: "/",
      env: { PATH: "/usr/local/bin:/usr/bin:/bin", NODE_COMPILE_CACHE: processEnv()["NODE_COMPILE_CACHE"] },
      execArgv: ["--max-semi-space-size=1"],
      // A reader of the worker's output would wait for the end of the last VM.
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    })
    keeper.on("message", (message) => log.error(message, "logs of vms not bounded"))
    keeper.on("error", (err) => log.error({ err }, "log keeper"))
    keeper.once("exit", (status) => {
      if (disposed) return
      log.error({ status }, "log keeper ended; starting another one")
      soon = setTimeout(start, restartMs)
    })
  }
  start()
  return {
    [Symbol.dispose]() {
      disposed = true
      clearTimeout(soon)
      keeper?.unref()
      if (keeper?.connected === true) keeper.disconnect()
    },
  }
}
