import { once } from "node:events"
import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import type { ImportProgress } from "@stillframe/hypervisors/disks/launch-files"
import type { FromCaptor, Order, Results } from "../../executor/orders.ts"
import { readResult } from "./captor-messages.ts"
import { captorProgram, startCaptorProcess, type CaptorProcess } from "./captor-process.ts"
import { orderDeadlines, watchDeadline, type OrderDeadlines } from "./order-deadline.ts"

/** After the last order. */
const spareDelayMs = 2_000
const idleEndMs = 5_000

export interface OrderOptions {
  /** Passed on to the captor, whose answer is still awaited: it resumes the VM first. */
  readonly signal: AbortSignal
  /**
   * When this is why `signal` was aborted, the result is still of use: to whoever comes after this process.
   */
  readonly stopping?: AbortSignal
  readonly onProgress?: (progress: number) => void
  readonly onImport?: (progress: ImportProgress) => void
  /**
   * Called before the failure is thrown when the captor ended without an answer: who is left alive resumes
   * the VM.
   */
  readonly onLost: () => Promise<void>
}

/**
 * The processes that alone talk to hypervisors: each carries out one order at a time. Those that are at work
 * when this is disposed of are left to themselves; their orders are never answered.
 */
export interface Captors extends AsyncDisposable {
  /** Throws what the captor failed with, `hypervisor_failed` when it died. */
  order<Kind extends Order["kind"]>(
    order: Extract<Order, { kind: Kind }>,
    options: OrderOptions,
  ): Promise<Results[Kind]>
}

/**
 * Keeps one captor waiting for its order, because to start a process takes longer than to pause a small VM.
 * While there is work it keeps up to `sparesMax` that have done theirs: orders that overlap all the time
 * would otherwise start one each.
 */
export function openCaptors({
  sparesMax = 1,
  deadlines = orderDeadlines,
  program = captorProgram,
}: { sparesMax?: number; deadlines?: OrderDeadlines; program?: string } = {}): Captors {
  const captors = new Set<CaptorProcess>()
  const running = new Set<CaptorProcess>()
  let spares: CaptorProcess[] = [start()]
  let soon: NodeJS.Timeout | undefined
  let disposed = false

  function start(): CaptorProcess {
    const captor = startCaptorProcess(program)
    captors.add(captor)
    captor.listen((message) => "free" in message && keep(captor))
    // One that could not start never exits.
    for (const end of ["exit", "error"]) captor.process.once(end, () => captors.delete(captor))
    return captor
  }

  function keep(captor: CaptorProcess): void {
    spares = spares.filter((captor) => captor.isConnected())
    if (spares.length >= sparesMax || disposed) captor.disconnect()
    else spares.push(captor)
  }

  function take(): CaptorProcess {
    spares = spares.filter((captor) => captor.isConnected())
    return spares.pop() ?? start()
  }

  function keepOne(): void {
    const [kept = start(), ...others] = spares.filter((captor) => captor.isConnected())
    for (const other of others) other.disconnect()
    spares = [kept]
  }

  // Not at once: its start would take the processor from the pause, and then from the compression.
  function prepareWhenIdle(): void {
    clearTimeout(soon)
    if (running.size === 0 && !disposed) soon = setTimeout(keepOne, spareDelayMs)
  }

  return {
    async order(order, options) {
      options.signal.throwIfAborted()
      const captor = take()
      running.add(captor)
      prepareWhenIdle()
      try {
        return (await carryOut(captor, order, { ...options, deadlines })) as never
      } finally {
        running.delete(captor)
        prepareWhenIdle()
      }
    },
    async [Symbol.asyncDispose]() {
      disposed = true
      clearTimeout(soon)
      for (const captor of running) leave(captor)
      await Promise.all([...captors].filter((captor) => !running.has(captor)).map(end))
    },
  }
}

async function end(captor: CaptorProcess): Promise<void> {
  if (captor.process.pid === undefined) return
  const exited = once(captor.process, "exit")
  captor.disconnect()
  // It has no order, so nothing is lost when one that hangs is killed.
  const timer = setTimeout(() => captor.process.kill("SIGKILL"), idleEndMs)
  await exited
  clearTimeout(timer)
}

/** It does what it can't leave undone, and this process need not live for it. */
function leave(captor: CaptorProcess): void {
  captor.process.unref()
  captor.disconnect()
}

async function carryOut(
  captor: CaptorProcess,
  order: Order,
  options: OrderOptions & { readonly deadlines: OrderDeadlines },
): Promise<unknown> {
  const { signal, stopping, onLost } = options
  if (captor.process.pid === undefined) throw await notStarted(captor)
  using deadline = watchDeadline(captor, order, options.deadlines)
  const answer = Promise.race([answerOf(captor, order, options), deadline.given])
  const abort = (): void => {
    captor.send(stopping?.aborted === true ? { stop: true } : { abort: true })
    // One that is told to stop is left to itself.
    if (stopping?.aborted !== true) deadline.calledOff()
  }
  try {
    captor.send({ order })
    if (signal.aborted) abort()
    else signal.addEventListener("abort", abort, { once: true })
    const message = await answer
    if (message === undefined) {
      await onLost()
      const reason = captor.breach() ?? deadline.late()
      if (reason !== undefined) throw reason
      throw new StillframeError(
        "hypervisor_failed",
        "the executor process died; the VM was resumed. Try again",
      )
    }
    if ("error" in message) {
      const { code, message: words, said } = message.error
      if (code === "cancelled") throw deadline.late() ?? new StillframeError(code, words, { said })
      throw new StillframeError(code, words, { said })
    }
    return message.result
  } finally {
    signal.removeEventListener("abort", abort)
  }
}

/** Why a captor that was to start just now has no process, nor a channel to send the order by. */
async function notStarted(captor: CaptorProcess): Promise<StillframeError> {
  const [cause] = (await once(captor.process, "error")) as [unknown]
  return toStillframeError(cause)
}

type Answer = Extract<FromCaptor, { readonly result: unknown } | { readonly error: unknown }>

/**
 * Undefined when the captor's process ended without one. Its lock is free before it answers, so its end is
 * not waited for.
 */
function answerOf(
  captor: CaptorProcess,
  { kind }: Order,
  { onProgress, onImport }: Pick<OrderOptions, "onProgress" | "onImport">,
): Promise<Answer | undefined> {
  const { promise, resolve } = Promise.withResolvers<Answer | undefined>()
  const believe = ({ result }: Extract<Answer, { readonly result: unknown }>): void => {
    try {
      resolve({ result: readResult(kind, result) })
    } catch (error) {
      captor.distrust("a result that makes no sense", error)
    }
  }
  const onMessage = (message: FromCaptor): void => {
    if ("progress" in message) onProgress?.(message.progress)
    else if ("importing" in message) onImport?.(message.importing)
    else if ("error" in message) resolve(message)
    else if ("result" in message) believe(message)
  }
  const onClose = (): void => resolve(undefined)
  const stopListening = captor.listen(onMessage)
  captor.process.once("close", onClose)
  return promise.finally(() => {
    stopListening()
    captor.process.off("close", onClose)
  })
}
