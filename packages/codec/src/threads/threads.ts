import { Worker } from "node:worker_threads"
import { StillframeError } from "@stillframe/domain/errors"
import { type Control, framesDone, stop } from "./control.ts"
import type { Task } from "./main.ts"
import type { Answer } from "./messages.ts"

interface Run {
  control: Control
  signal: AbortSignal
  onBatch?: (batch: number, content: ArrayBuffer | undefined) => void
  /** Called now and then with the number of frames that are finished. */
  onFramesDone?: ((frames: number) => void) | undefined
}

/**
 * Runs each task in a thread of its own until all have ended, and returns their results. The first failure,
 * or the signal (whose reason is thrown), stops the others; none is running any more when this settles.
 */
export async function runThreads(tasks: readonly Task[], run: Run): Promise<(string | undefined)[]> {
  const { control, signal, onFramesDone } = run
  signal.throwIfAborted()
  const onAbort = (): void => stop(control)
  signal.addEventListener("abort", onAbort)
  const progress = onFramesDone && setInterval(() => onFramesDone(framesDone(control)), progressEveryMs)
  try {
    const outcomes = await Promise.allSettled(tasks.map((task) => runThread(task, run)))
    signal.throwIfAborted()
    const failure = outcomes.find((outcome) => outcome.status === "rejected")
    if (failure) throw failure.reason
    onFramesDone?.(framesDone(control))
    return outcomes.map((outcome) => (outcome.status === "fulfilled" ? outcome.value : undefined))
  } finally {
    clearInterval(progress)
    signal.removeEventListener("abort", onAbort)
  }
}

const progressEveryMs = 200

/**
 * Threads kept for the next run: a first run in new ones takes three times as long (867 against 250 ms for
 * 108 MB).
 */
const idle: { worker: Worker; forget: () => void }[] = []
const idleMax = 16

/**
 * Starts threads before they are needed; they do not keep the process alive. Disposing of this waits until
 * they have loaded: a process that ends while one loads a native library is aborted by that library.
 */
export function warmThreads(count: number): AsyncDisposable {
  while (idle.length < Math.min(count, idleMax)) keepWorker(startWorker())
  return {
    async [Symbol.asyncDispose]() {
      await Promise.all(idle.map(({ worker }) => untilLoaded(worker)))
    },
  }
}

async function untilLoaded(worker: Worker): Promise<void> {
  // Nothing else may keep the process until then.
  worker.ref()
  await loading.get(worker)
  if (idle.some((kept) => kept.worker === worker)) worker.unref()
}

async function runThread(task: Task, { control, onBatch }: Run): Promise<string | undefined> {
  const worker = takeWorker()
  const { promise, resolve, reject } = Promise.withResolvers<string | undefined>()
  const onMessage = (answer: Answer): void => {
    if (answer.state === "loaded") return
    if (answer.state === "batch") return onBatch?.(answer.batch, answer.content)
    worker.off("message", onMessage).off("error", reject).off("exit", onExit)
    keepWorker(worker)
    if (answer.state === "failed") reject(failureOf(answer))
    else resolve(answer.state === "done" ? answer.result : undefined)
  }
  const onExit = (exitCode: number): void =>
    reject(new StillframeError("internal_error", `a codec thread ended with ${exitCode}; try again`))
  worker.on("message", onMessage).on("error", reject).on("exit", onExit)
  worker.postMessage(task, [])
  try {
    return await promise
  } catch (thrown) {
    stop(control)
    throw thrown
  }
}

function failureOf({
  code,
  message,
  said,
  systemCode,
}: Extract<Answer, { state: "failed" }>): StillframeError {
  const cause = systemCode === undefined ? undefined : Object.assign(new Error(message), { code: systemCode })
  return new StillframeError(code, message, { cause, said })
}

function takeWorker(): Worker {
  const kept = idle.pop()
  if (!kept) return startWorker()
  kept.worker.off("error", kept.forget).off("exit", kept.forget)
  kept.worker.ref()
  return kept.worker
}

function startWorker(): Worker {
  // Flags such as --input-type are about the main program and would keep the thread's file from loading.
  const worker = new Worker(new URL("main.ts", import.meta.url), { execArgv: [] })
  const { promise, resolve } = Promise.withResolvers<void>()
  worker.once("message", () => resolve()).once("exit", () => resolve())
  loading.set(worker, promise)
  return worker
}

/** Resolves when the thread has loaded, or has ended. */
const loading = new WeakMap<Worker, Promise<void>>()

function keepWorker(worker: Worker): void {
  if (idle.length >= idleMax) return void worker.terminate()
  const forget = (): void => {
    const index = idle.findIndex((kept) => kept.worker === worker)
    if (index !== -1) idle.splice(index, 1)
    void worker.terminate()
  }
  // An idle thread must not keep the process alive, and one that dies must not be handed out.
  worker.unref()
  worker.on("error", forget).on("exit", forget)
  idle.push({ worker, forget })
}
