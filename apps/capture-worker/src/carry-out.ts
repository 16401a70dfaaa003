import { carryOutAttach, carryOutRelease } from "./carry-out-attach.ts"
import { carryOutCapture } from "./carry-out-capture.ts"
import { carryOutEnd, carryOutLaunch, carryOutStart, carryOutStop } from "./carry-out-launch.ts"
import { carryOutMerge } from "./carry-out-merge.ts"
import { carryOutRestore } from "./carry-out-restore.ts"
import { carryOutStandby } from "./carry-out-standby.ts"
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
  const trustedUntil = performance.now() + ("leaseMs" in order ? order.leaseMs : 0)
  const captor = { signal, report, leaseRemainingMs: () => trustedUntil - performance.now() }
  await using _lock = await holdVmLock(order, lockWaitMs)
  // Awaited here, or the lock would be freed while the work goes on.
  switch (order.kind) {
    case "capture":
      return await carryOutCapture(order, captor)
    case "standby":
      return await carryOutStandby(order, captor)
    case "attach":
      return await carryOutAttach(order)
    case "release":
      return await carryOutRelease(order, signal)
    case "launch":
      return await carryOutLaunch(order, signal)
    case "start":
      return await carryOutStart(order, signal)
    case "restore":
      return await carryOutRestore(order, signal)
    case "stop":
      return await carryOutStop(order, signal)
    case "merge":
      return await carryOutMerge(order, signal)
    case "end":
      return await carryOutEnd(order)
  }
}
