import { inTransaction } from "@stillframe/db/client"
import { appendSnapshotEvent } from "@stillframe/db/events/events"
import { finishDone, type OperationHandler } from "@stillframe/db/operations/run-operation"
import { openReader } from "@stillframe/db/snapshots/readers"
import { isScrub, recordVerdict, workWaits, type Verdict } from "@stillframe/db/snapshots/verifications"
import { StillframeError } from "@stillframe/domain/errors"
import { operationAttempts } from "@stillframe/domain/operation"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { payloadDir } from "@stillframe/storage/layout"
import { readBack } from "./read-back.ts"
import type { GuardedWork } from "./stall-guard.ts"
import type { Worker } from "./worker.ts"

const lookForWorkMs = 2_000

/**
 * Reads all files of a snapshot and writes down whether they are what was captured. Damage is a result, not a
 * failure: only what may pass, such as a disk that can't be read, fails the operation.
 */
export function verifyHandler(worker: Worker): OperationHandler {
  const { config, db, guard, log, pool } = worker
  return {
    async failed() {
      // Nothing was found out, so nothing changes.
    },
    async run({ operation, signal }) {
      if (operation.attempt > operationAttempts.verify.max)
        throw new StillframeError(
          "lease_lost",
          "the compression-worker died in each attempt to verify the snapshot; see its log",
        )
      const snapshotId = operation.snapshotId ?? ""
      const trouble = openTrouble(log, { lost: `reader of snapshot ${snapshotId} not renewed` })
      await using reader = await openReader(db, snapshotId, {
        evenCorrupted: true,
        onRenewalError: trouble.failed,
      })
      const { snapshot } = reader
      using work = isScrub(operation) ? waitingWork(worker) : undefined
      const dir = payloadDir(config.storageDir, snapshot.id, snapshot.payload ?? "")
      const ended = work === undefined ? signal : AbortSignal.any([signal, work.signal])
      const read = (guarded: GuardedWork): Promise<Verdict | undefined> =>
        readBack(dir, { snapshot, threads: config.threads, ...guarded }).catch((error: unknown) => {
          if (work?.signal.aborted !== true || signal.aborted) throw error
          return undefined
        })
      const verdict = await guard.run(ended, async (guarded) => {
        const found = await pool.during(() => read(guarded))
        // A file that is missing from an absent pool is not damaged.
        await pool.identify()
        return found
      })
      await inTransaction(db, async (tx) => {
        // It gives way: the scrub comes again.
        if (verdict === undefined) return finishDone(tx, operation)
        const judged = await recordVerdict(tx, snapshot, verdict)
        await finishDone(tx, operation)
        if (judged === undefined)
          throw new StillframeError("unavailable", "the files of the snapshot changed while they were read")
        const { damage } = verdict
        await appendSnapshotEvent(
          tx,
          damage === undefined ? "snapshot.verified" : "snapshot.corrupted",
          judged,
        )
      })
      if (verdict?.damage !== undefined)
        log.error({ snapshotId, damage: verdict.damage }, "snapshot is corrupted")
    },
  }
}

/** Aborted as soon as other work waits for the pool. */
function waitingWork({ config, db, log }: Worker): Disposable & { readonly signal: AbortSignal } {
  const found = new AbortController()
  const look = async (): Promise<void> => {
    if (await workWaits(db, config.pool)) found.abort()
  }
  const trouble = openTrouble(log, { lost: "not known whether work waits" })
  const timer = setInterval(() => void look().catch(trouble.failed), lookForWorkMs)
  return { signal: found.signal, [Symbol.dispose]: () => clearInterval(timer) }
}
