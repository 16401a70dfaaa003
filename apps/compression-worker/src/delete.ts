import { rm } from "node:fs/promises"
import { inTransaction } from "@stillframe/db/client"
import { cancelledStillAtWork } from "@stillframe/db/operations/open-operations"
import { finishDone, type OperationHandler } from "@stillframe/db/operations/run-operation"
import { hasReaders } from "@stillframe/db/snapshots/readers"
import { removeSnapshotRow } from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { snapshotDir } from "@stillframe/storage/layout"
import type { Worker } from "./worker.ts"

/**
 * Removes the files of a snapshot that is gone for everybody outside, then its row. What other snapshots and
 * VMs share with it lives on in their own hard links.
 */
export function deleteHandler({ db, config, pool, guard }: Worker): OperationHandler {
  return {
    async run({ operation, signal }) {
      const { snapshotId } = operation
      if (snapshotId !== null) {
        if ((await hasReaders(db, snapshotId)) || (await cancelledStillAtWork(db, snapshotId)))
          throw new StillframeError("unavailable", "the snapshot's files are still in use")
        await guard.run(signal, async () => {
          await pool.identify()
          await rm(snapshotDir(config.storageDir, snapshotId), { recursive: true, force: true })
          // They are gone only if they were removed from the pool that had them.
          await pool.identify()
        })
      }
      await inTransaction(db, async (tx) => {
        await finishDone(tx, operation)
        if (snapshotId !== null) await removeSnapshotRow(tx, snapshotId)
      })
    },
    async failed() {
      // Tried until it is done.
    },
  }
}
