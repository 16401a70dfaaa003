import type { ImportProgress } from "@stillframe/hypervisors/disks/launch-files"
import { holdVmLock } from "../pause/vm-lock.ts"
import { carryOutAttach, carryOutRelease } from "./carry-out-attach.ts"
import { carryOutCapture } from "./carry-out-capture.ts"
import { carryOutEnd, carryOutLaunch, carryOutStart, carryOutStop } from "./carry-out-launch.ts"
import { carryOutMerge } from "./carry-out-merge.ts"
import { carryOutRestore } from "./carry-out-restore.ts"
import { carryOutStandby } from "./carry-out-standby.ts"
import { inFileWords } from "./file-words.ts"
import type { Order, Results } from "./orders.ts"
import type { Captor } from "./save-vm.ts"

/** The previous captor of the same VM may still be resuming it. */
const lockWaitMs = 10_000

interface Worker {
  /** It does not want the result any more. */
  readonly cancelled: AbortSignal
  /** It stops or has died: nobody waits for the result, and whoever comes next may want it. */
  readonly abandoned: AbortSignal
  /** Takes progress from 0 to 1. */
  readonly report: (progress: number) => void
  readonly reportImport: (progress: ImportProgress) => void
}

/** Does what an order says, holding the VM's lock from the first to the last. */
export async function carryOut(
  order: Order,
  { cancelled, abandoned, report, reportImport }: Worker,
): Promise<Results[Order["kind"]]> {
  const trustedUntil = performance.now() + ("leaseMs" in order ? order.leaseMs : 0)
  const signal = AbortSignal.any([cancelled, abandoned])
  const captor = { signal, cancelled, report, leaseRemainingMs: () => trustedUntil - performance.now() }
  // The captor of a capture's first try may be left to itself until its pause is over.
  const waitMs = order.kind === "capture" ? lockWaitMs + order.pauseLimitMs : lockWaitMs
  await using _lock = await holdVmLock(order, waitMs)
  // Awaited here, or the lock would be freed while the work goes on.
  return await execute(order, { captor, signal, reportImport }).catch((error: unknown) => {
    throw inFileWords(error, order)
  })
}

async function execute(
  order: Order,
  { captor, signal, reportImport }: Pick<Worker, "reportImport"> & { captor: Captor; signal: AbortSignal },
): Promise<Results[Order["kind"]]> {
  switch (order.kind) {
    case "capture":
      return await carryOutCapture(order, captor)
    case "standby":
      return await carryOutStandby(order, captor)
    case "attach":
      return await carryOutAttach(order, signal)
    case "release":
      return await carryOutRelease(order, signal)
    case "launch":
      return await carryOutLaunch(order, signal, reportImport)
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
