import { StillframeError } from "@stillframe/domain/errors"
import type { Capture } from "@stillframe/hypervisors/capture"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { generationDir, rawMemoryName } from "@stillframe/storage/layout"
import type { CaptureOrder, StandbyOrder } from "./orders.ts"
import { saveAttached } from "./save-attached.ts"
import { withPauseRecord, type PauseHooks } from "./with-pause-record.ts"

/** Less than this left of the lease, and the VM is not paused any more. */
const leaseLeftMinMs = 10_000

export interface Captor {
  /** Whatever stops it. */
  readonly signal: AbortSignal
  /** Only that nobody wants its result. */
  readonly cancelled: AbortSignal
  /** From 0 to 1. */
  readonly report: (progress: number) => void
  readonly leaseRemainingMs: () => number
}

/**
 * Saves a running VM's memory into `dir`; it runs again when this resolves, and when it fails. A captor that
 * is stopped in a save that can't be called off goes through with it: the VM has been paused for it, and
 * whoever comes next need not.
 */
export async function saveVm(order: CaptureOrder, captor: Captor, dir: string): Promise<Capture> {
  const { signal, onPaused } = (await hypervisorOf(order.hypervisor)).canCancel
    ? { signal: captor.signal, onPaused: () => {} }
    : untilPaused(captor)
  const captured = await withPauseRecord(order, (pause) =>
    capture(order, { ...captor, signal }, { dir, pause, keepPaused: false, onPaused }),
  )
  signal.throwIfAborted()
  return captured
}

/** Stops a captor before the pause; afterwards only if its result has become useless. */
function untilPaused({ signal, cancelled }: Captor): { signal: AbortSignal; onPaused: () => void } {
  const stop = new AbortController()
  const onStop = (): void => stop.abort(signal.reason)
  if (signal.aborted) onStop()
  signal.addEventListener("abort", onStop, { once: true })
  return {
    signal: AbortSignal.any([stop.signal, cancelled]),
    onPaused: () => signal.removeEventListener("abort", onStop),
  }
}

/**
 * Saves a running VM's memory into `dir` and keeps it paused for `work`, which is to end it. When that fails
 * the VM is put back as it was found, by this process or by whoever comes after it.
 */
export async function saveVmAndEnd<T>(
  order: StandbyOrder,
  captor: Captor,
  { dir, work }: { dir: string; work: (captured: Capture) => Promise<T> },
): Promise<T> {
  return withPauseRecord(order, async (pause) =>
    work(await capture(order, captor, { dir, pause, keepPaused: true })),
  )
}

async function capture(
  order: CaptureOrder | StandbyOrder,
  captor: Captor,
  {
    dir,
    pause,
    keepPaused,
    onPaused,
  }: { dir: string; pause: PauseHooks; keepPaused: boolean; onPaused?: () => void },
): Promise<Capture> {
  const options = {
    mode: order.kind === "capture" ? order.mode : undefined,
    pauseExpectedMs: order.pauseExpectedMs,
    pauseLimitMs: order.pauseLimitMs,
    signal: captor.signal,
    ...(onPaused !== undefined && { onPaused }),
    onProgress: (bytes: number) => captor.report(Math.min(1, bytes / (order.memoryMib * 1024 ** 2))),
    beforePause: async ({ wasRunning }: { wasRunning: boolean }) => {
      await pause.begin({ wasRunning })
      // The disks of a VM that stands still anyway are copied before, and that may take longer than a lease.
      if (wasRunning && captor.leaseRemainingMs() < leaseLeftMinMs)
        throw new StillframeError("lease_lost", "too little is left of the lease to pause the VM")
    },
  }
  if (order.kind === "capture" && order.source.state === "Attached")
    return saveAttached(order, order.source, { dir, options, pause })
  const vm = {
    dir: generationDir(order.dataDir, order.instanceId, order.generation),
    config: order.launch,
  }
  const into = { dir, memoryName: rawMemoryName }
  return (await hypervisorOf(order.hypervisor)).capture(vm, into, { ...options, keepPaused })
}
