import { readdirSync } from "node:fs"
import { Socket } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import { toStillframeError } from "@stillframe/domain/errors"
import type { ImportProgress } from "@stillframe/hypervisors/disks/launch-files"
import { loadMostUsed } from "@stillframe/hypervisors/hypervisor-of"
import { readBoundedLines } from "@stillframe/hypervisors/process/bounded-lines"
import { endNow } from "@stillframe/runtime/end-now"
import { carryOut } from "./carry-out.ts"
import {
  captorChannelFd,
  messageBytesMax,
  wordsMax,
  type FromCaptor,
  type Order,
  type ToCaptor,
} from "./orders.ts"

const importReportMs = 250
const freeLookMs = 10
const freeLooksMax = 20

interface Running {
  readonly cancelled: AbortController
  readonly abandoned: AbortController
}

// The process that alone talks to a VM's hypervisor: a child of the capture-worker with a session of its own.
// When the worker dies the channel closes, and without asking anybody what is under way is given up and the
// VM resumed; a save that can't be called off is gone through with, for the worker that comes next. It takes
// the next order only after a success that left nothing open: a pause record names its captor, and must not
// outlive the work of that captor.
let running: Running | undefined
// While this process waits for its first order; a failure is told by the order that needs the adapter.
loadMostUsed().catch(() => {})
const channel = new Socket({ fd: captorChannelFd })
channel.on("close", () => {
  if (running === undefined) endNow(0)
  running.abandoned.abort()
})
// A worker that has died: an error that nobody takes would end this process in the pause. The close comes
// after it.
channel.on("error", () => {})
// Ctrl-C in a terminal reaches every process of its group; a captor stops when its worker says so.
process.on("SIGINT", () => {})
process.on("SIGTERM", () => {
  if (running === undefined) endNow(0)
  running.cancelled.abort()
})

readBoundedLines(channel, {
  bytesMax: () => messageBytesMax,
  onLine(line) {
    const message = JSON.parse(line) as ToCaptor
    // An answer and the word to stop may cross: then there is nothing to stop.
    if ("abort" in message) running?.cancelled.abort()
    else if ("stop" in message) running?.abandoned.abort()
    else void run(message.order)
  },
  breach: () => new RangeError("the worker sent what is no order"),
})

// After the listeners: that of the channel keeps the process alive.
const resourcesAtStart = openResources()

async function run(order: Order): Promise<void> {
  const { cancelled, abandoned } = (running = {
    cancelled: new AbortController(),
    abandoned: new AbortController(),
  })
  const answer = await carryOut(order, {
    cancelled: cancelled.signal,
    abandoned: abandoned.signal,
    report: (progress) => send({ progress }),
    reportImport: importReporter(),
  }).then(
    (result): FromCaptor => (isTooLong({ result }) ? tooManyLayers : { result }),
    (thrown: unknown): FromCaptor => {
      const { code, message, said } = toStillframeError(thrown)
      return { error: { code, message, ...(said !== undefined && { said: said.slice(0, wordsMax) }) } }
    },
  )
  if (!channel.writable) endNow(0)
  running = undefined
  send(answer, () => "error" in answer && endNow(0))
  if ("result" in answer) await offerAgain()
}

const isTooLong = (message: FromCaptor): boolean =>
  Buffer.byteLength(JSON.stringify(message)) > messageBytesMax

/** Nothing else in an answer can be as long. */
const tooManyLayers: FromCaptor = {
  error: {
    code: "not_supported",
    message:
      "the VM's disks have thousands of layers, more than a snapshot can name; delete snapshots of the instance, so that its layers can be merged, and try again",
  },
}

/** Sockets and files that the order closed take a moment to go. */
async function offerAgain(): Promise<void> {
  for (let look = 0; look < freeLooksMax; look++) {
    await delay(freeLookMs)
    if (openResources() === resourcesAtStart) return send({ free: true })
  }
  endNow(0)
}

/**
 * Names the resources that keep this process alive, and counts its open files. An order that leaves nothing
 * changes neither.
 */
function openResources(): string {
  const files = readdirSync("/proc/self/fd").length
  return [...process.getActiveResourcesInfo().toSorted(), files].join()
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

function send(message: FromCaptor, then = (): void => {}): void {
  if (channel.writable) channel.write(`${JSON.stringify(message)}\n`, then)
}
