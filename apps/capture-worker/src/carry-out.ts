import { carryOutCapture } from "./carry-out-capture.ts"
import { carryOutEnd, carryOutFork, carryOutLaunch } from "./carry-out-launch.ts"
import type { Order, Results } from "./orders.ts"
import { holdVmLock } from "./vm-lock.ts"

/** The previous captor of the same VM may still be resuming it. */
const lockWaitMs = 10_000

/** Does what an order says, holding the VM's lock from the first to the last. `report` takes progress from 0 to 1. */
export async function carryOut(
  order: Order,
  signal: AbortSignal,
  report: (progress: number) => void,
): Promise<Results[Order["kind"]]> {
  const trustedUntil = performance.now() + order.leaseMs
  await using _lock = await holdVmLock(order, lockWaitMs)
  // Awaited here, or the lock would be freed while the work goes on.
  switch (order.kind) {
    case "capture":
      return await carryOutCapture(order, {
        signal,
        report,
        leaseRemainingMs: () => trustedUntil - performance.now(),
      })
    case "launch":
      return await carryOutLaunch(order, signal)
    case "fork":
      return await carryOutFork(order, signal)
    case "end":
      return await carryOutEnd(order)
  }
}
