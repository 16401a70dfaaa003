import { fork, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { FromCaptor, Order, Results } from "./orders.ts"

const captorProgram = join(import.meta.dirname, "captor.ts")

/**
 * Gives an order to a new captor and waits for its answer. An abort is passed on, and the captor's answer still awaited,
 * since it resumes the VM first. When the captor ends without an answer, `onLost` runs before this throws: whoever is left
 * alive resumes the VM at once.
 */
export async function order<Kind extends Order["kind"]>(
  what: Extract<Order, { kind: Kind }>,
  {
    signal,
    onProgress,
    onLost,
  }: { signal: AbortSignal; onProgress?: (progress: number) => void; onLost: () => Promise<void> },
): Promise<Results[Kind]> {
  signal.throwIfAborted()
  // A session of its own: neither Ctrl-C nor the worker's death takes the captor along in the middle of a pause.
  const captor = fork(captorProgram, [], { detached: true, stdio: ["ignore", "ignore", "inherit", "ipc"] })
  const answer = answerOf(captor, onProgress)
  const abort = (): void => void captor.send({ abort: true }, ignoreClosed)
  signal.addEventListener("abort", abort, { once: true })
  try {
    captor.send({ order: what }, ignoreClosed)
    const message = await answer
    if (message === undefined) {
      await onLost()
      throw new StillframeError(
        "hypervisor_failed",
        "the process that spoke to the hypervisor died; the VM was resumed",
      )
    }
    if ("error" in message) throw new StillframeError(message.error.code, message.error.message)
    return message.result as Results[Kind]
  } finally {
    signal.removeEventListener("abort", abort)
  }
}

type Answer = Exclude<FromCaptor, { readonly progress: number }>

/** Undefined when the captor's process ended without one. */
async function answerOf(
  captor: ChildProcess,
  onProgress?: (progress: number) => void,
): Promise<Answer | undefined> {
  let answer: Answer | undefined
  captor.on("message", (message: FromCaptor) => {
    if ("progress" in message) onProgress?.(message.progress)
    else answer = message
  })
  await Promise.race([once(captor, "exit"), once(captor, "error")])
  return answer
}

/** A captor that is gone is noticed by its end, not by a message that did not reach it. */
function ignoreClosed(_error: Error | null): void {}
