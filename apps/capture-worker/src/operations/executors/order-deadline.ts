import { StillframeError } from "@stillframe/domain/errors"
import type { Order } from "../../executor/orders.ts"
import type { CaptorProcess } from "./captor-process.ts"

const minuteMs = 60_000
/** Looks and signals only. */
const shortMs = 5 * minuteMs
/** Copies disks of any size. */
const longMs = 12 * 60 * minuteMs
/** A killed process that hangs in the kernel ends when the kernel lets it. */
const killedMs = 5_000

export interface OrderDeadlines {
  /** How long an order may take before it is called off. */
  readonly orderMs: (order: Order) => number
  /** How long after that, or after its owner called it off, its captor may take to answer. */
  readonly endMs: (order: Order) => number
}

export const orderDeadlines: OrderDeadlines = {
  orderMs(order) {
    if (order.kind === "stop") return order.guestMs + shortMs
    return order.kind === "end" || order.kind === "attach" ? shortMs : longMs
  },
  // A save that cannot be called off is gone through with, and a copy of a file ends with its program.
  endMs: (order) => ("pauseLimitMs" in order ? order.pauseLimitMs + 10 * minuteMs : minuteMs),
}

/** Ends a captor that gives no answer: what it held is taken over as after its death. */
export interface OrderDeadline extends Disposable {
  /** To be called when the order is called off. */
  calledOff(): void
  /** Resolves when the captor was killed and is not waited for any more. */
  readonly given: Promise<undefined>
  /** The error of an order that took too long, once it has. */
  late(): StillframeError | undefined
}

export function watchDeadline(captor: CaptorProcess, order: Order, deadlines: OrderDeadlines): OrderDeadline {
  const given = Promise.withResolvers<undefined>()
  const timers: NodeJS.Timeout[] = []
  const after = (ms: number, then: () => void): void => void timers.push(setTimeout(then, ms).unref())
  let late: StillframeError | undefined
  const calledOff = (): void =>
    after(deadlines.endMs(order), () => {
      late ??= tooLate(order)
      captor.process.kill("SIGKILL")
      after(killedMs, () => given.resolve(undefined))
    })
  after(deadlines.orderMs(order), () => {
    late = tooLate(order)
    captor.send({ abort: true })
    calledOff()
  })
  return {
    calledOff,
    given: given.promise,
    late: () => late,
    [Symbol.dispose]: () => timers.forEach((timer) => clearTimeout(timer)),
  }
}

function tooLate({ kind }: Order): StillframeError {
  return new StillframeError(
    "timeout",
    `the ${kind} did not end in time and was abandoned; a disk or a network file system of the host may hang`,
  )
}
