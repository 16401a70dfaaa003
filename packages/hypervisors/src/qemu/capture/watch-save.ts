import { StillframeError } from "@stillframe/domain/errors"
import type { CaptureRequest } from "../../capture.ts"
import { pauseDeadline } from "../../file-vmm/pause-deadline.ts"
import type { Monitor } from "../monitor/qmp.ts"
import type { MemorySink } from "./memory-sink.ts"
import { migrationEnd } from "./migration.ts"

const PROGRESS_MS = 200

interface SaveWatch extends Disposable {
  /** As `migrationEnd` says. */
  readonly ended: Promise<void>
  /**
   * Waits for a step of the save. Rejects when the save is cancelled or takes too long; `vm` is the VM's
   * state meanwhile.
   */
  during(vm: "paused" | "running", step: Promise<unknown>): Promise<void>
}

/** Reports the progress of the save that is about to start, and ends the wait for it at its deadline. */
export function watchSave(
  monitor: Monitor,
  { sink, signal, onProgress, pauseExpectedMs, pauseLimitMs }: CaptureRequest & { sink: MemorySink },
): SaveWatch {
  const end = migrationEnd(monitor)
  const overdue = Promise.withResolvers<number>()
  const cancelled = Promise.withResolvers<never>()
  // It may come between two steps.
  cancelled.promise.catch(() => {})
  const onAbort = (): void => cancelled.reject(signal.reason)
  signal.addEventListener("abort", onAbort, { once: true })
  const started = performance.now()
  const isOver = pauseDeadline({ expectedMs: pauseExpectedMs, limitMs: pauseLimitMs })
  const looking = setInterval(() => {
    const bytes = sink.bytes()
    onProgress?.(bytes)
    const sinceMs = performance.now() - started
    if (isOver(sinceMs, bytes)) overdue.resolve(sinceMs)
  }, PROGRESS_MS)
  const limit = setTimeout(() => overdue.resolve(pauseLimitMs), pauseLimitMs)
  return {
    ended: end.promise,
    async during(vm, step) {
      const tooLate = overdue.promise.then((ms) => {
        throw tooLong(ms, vm)
      })
      await Promise.race([step, cancelled.promise, tooLate])
    },
    [Symbol.dispose]() {
      clearInterval(looking)
      clearTimeout(limit)
      signal.removeEventListener("abort", onAbort)
      end.stop()
    },
  }
}

function tooLong(sinceMs: number, vm: "paused" | "running"): StillframeError {
  const ms = Math.round(sinceMs)
  const what =
    vm === "paused"
      ? `the VM was paused for ${ms} ms and then resumed`
      : `the memory was not saved in ${ms} ms, while the VM ran`
  return new StillframeError("pause_limit_exceeded", `${what}; use faster storage or raise PAUSE_LIMIT`)
}
