import { assertOwnSocket } from "../../process/own-socket.ts"
import type { VmEnd, Watch } from "../../watch.ts"
import { qemuFiles } from "../process/command.ts"
import { openMonitor } from "./qmp.ts"
import { letGoOn, standstillOf } from "./standstill.ts"

/** After which the guest may have stopped or gone on. */
const changes: ReadonlySet<string> = new Set([
  "STOP",
  "RESUME",
  "BLOCK_IO_ERROR",
  "GUEST_PANICKED",
  "WATCHDOG",
  "SUSPEND",
  "SUSPEND_DISK",
  "WAKEUP",
])

/** Watches a VM by `watch.sock`, which one worker at a time may hold. Throws as `openMonitor` does. */
export async function watchQemu(dir: string): Promise<Watch> {
  const monitor = await openMonitor(dir, qemuFiles.watch)
  let end: VmEnd = "gone"
  let breach: string | undefined
  let closedByUs = false
  monitor.subscribe(({ event, data }) => {
    if (event === "GUEST_PANICKED") end = "guest_panicked"
    if (event === "SHUTDOWN" && end !== "guest_panicked") end = endOf(String(data?.["reason"]))
  })
  const ended = monitor.closed.then(async (error) => {
    breach = error?.message
    return closedByUs ? await never : end
  })
  return {
    ended,
    breach: () => breach,
    onChange: (listener) => monitor.subscribe(({ event }) => void (changes.has(event) && listener())),
    async look() {
      // This connection outlives the names: what other work would connect to says more.
      for (const name of [qemuFiles.watch, qemuFiles.command]) assertOwnSocket(dir, name)
      return await standstillOf(monitor)
    },
    resume: () => letGoOn(monitor),
    close: () => {
      closedByUs = true
      monitor.close()
    },
  }
}

const never = new Promise<never>(() => {})

/** QAPI's ShutdownCause, by what it means to us. */
function endOf(cause: string): VmEnd {
  if (cause === "guest-shutdown") return "guest_shutdown"
  if (cause === "guest-reset") return "guest_reset"
  if (cause === "guest-panic") return "guest_panicked"
  return "ended_by_host"
}
