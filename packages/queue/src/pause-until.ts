const checkMs = 1_000

export interface PausableWorker {
  isPaused(): boolean
  pause(doNotWaitActive: boolean): Promise<void>
  resume(): Promise<void>
}

/**
 * A worker whose tables or connections are gone asks again without any pause, which can keep the event loop
 * from ever noticing that a connection has ended. So it is stopped until the tables are there. `signal`: the
 * engine is closed, and its workers are left as they are.
 */
export function pauseUntil(
  worker: PausableWorker,
  intact: () => Promise<boolean>,
  signal: AbortSignal,
  onError: (error: Error) => void,
): void {
  // Closing loses connections too, and a timer from then on would keep the process for ever.
  if (signal.aborted || worker.isPaused()) return
  worker.pause(true).catch(onError)

  async function check(): Promise<void> {
    if (!(await intact()) || signal.aborted) return
    clearInterval(timer)
    await worker.resume()
  }
  const timer = setInterval(() => void check().catch(onError), checkMs)
  signal.addEventListener("abort", () => clearInterval(timer), { once: true })
}
