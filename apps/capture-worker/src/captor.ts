import { toStillframeError } from "@stillframe/domain/errors"
import { loadMostUsed } from "@stillframe/hypervisors/hypervisor-of"
import type { ImportProgress } from "@stillframe/hypervisors/launch-files"
import { carryOut } from "./carry-out.ts"
import type { FromCaptor, Order, ToCaptor } from "./orders.ts"

const importReportMs = 250

// The process that alone talks to a VM's hypervisor: a child of the capture-worker with a session of its own. When the
// worker dies the channel closes, and without asking anybody what is under way is given up and the VM resumed; a save that
// can't be called off is gone through with, for the worker that comes next.
const cancelled = new AbortController()
const abandoned = new AbortController()
let ordered = false
// While this process waits for its order; a failure is told by the order that needs the adapter.
loadMostUsed().catch(() => {})
process.on("disconnect", () => {
  abandoned.abort()
  if (!ordered) process.exit(0)
})
// Ctrl-C in a terminal reaches every process of its group; a captor stops when its worker says so.
process.on("SIGINT", () => {})
process.on("SIGTERM", () => cancelled.abort())

process.on("message", (message: ToCaptor) => {
  if ("abort" in message) cancelled.abort()
  else if ("stop" in message) abandoned.abort()
  else {
    ordered = true
    void run(message.order)
  }
})

async function run(order: Order): Promise<void> {
  const answer = await carryOut(order, {
    cancelled: cancelled.signal,
    abandoned: abandoned.signal,
    report: (progress) => send({ progress }),
    reportImport: importReporter(),
  }).then(
    (result): FromCaptor => ({ result }),
    (thrown: unknown): FromCaptor => {
      const { code, message, said } = toStillframeError(thrown)
      return { error: { code, message, ...(said !== undefined && { said }) } }
    },
  )
  if (process.connected) process.send?.(answer, undefined, {}, () => process.exit(0))
  else process.exit(0)
}

/** An import reads a piece in a millisecond: its worker is told some times a second. */
function importReporter(): (importing: ImportProgress) => void {
  let sentAt = -importReportMs
  return (importing) => {
    const now = performance.now()
    if (now - sentAt < importReportMs) return
    sentAt = now
    send({ importing })
  }
}

function send(message: FromCaptor): void {
  // The worker may have died without being missed yet: an error that nobody takes would end this process in the pause.
  if (process.connected) process.send?.(message, undefined, {}, () => {})
}
