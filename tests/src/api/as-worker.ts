import { inTransaction } from "@stillframe/db/client"
import { appendInstanceEvent, appendSnapshotEvent } from "@stillframe/db/events/events"
import { advanceInstance, deleteInstance } from "@stillframe/db/instances/instances"
import { publishCompressed } from "@stillframe/db/operations/compressions"
import { claimOperation, finishOperation, type ClaimedOperation } from "@stillframe/db/operations/operations"
import { takeUnrelayed, type RelayedOperation } from "@stillframe/db/operations/relay"
import { failSnapshot, publishCapture, startCapture } from "@stillframe/db/snapshots/snapshots"
import type { ErrorCode } from "@stillframe/domain/errors"
import { whenWoken, type TestApi } from "./test-api.ts"

/** What the dispatcher and the workers do with the rows, done by the test in their stead. */
export function asWorker(api: TestApi): {
  take(): Promise<ClaimedOperation>
  launched(operation: ClaimedOperation): Promise<void>
  failed(operation: ClaimedOperation, error: { code: ErrorCode; message: string }): Promise<void>
  ended(operation: ClaimedOperation): Promise<void>
  captured(operation: ClaimedOperation, options?: { compress?: boolean }): Promise<void>
  compressed(snapshotId: string): Promise<void>
} {
  const { db, waker } = api
  const relayed: RelayedOperation[] = []
  return {
    async take() {
      const next = await whenWoken(api, "operations", async () => {
        relayed.push(...(await takeUnrelayed(db)))
        return relayed.shift()
      })
      const claimed = await claimOperation(db, { ...next, worker: "test" })
      if (claimed === undefined) throw new Error("the operation could not be claimed")
      return claimed
    },
    async launched({ id, token, instanceId }) {
      await inTransaction(db, async (tx) => {
        const row = await advanceInstance(tx, instanceId ?? "", "Running", { pid: 1 })
        await finishOperation(tx, { id, token, end: { state: "done" } })
        if (row !== undefined) await appendInstanceEvent(tx, "instance.state_changed", row)
      })
      waker.wake("events")
    },
    async failed({ id, token, kind, instanceId, snapshotId }, error) {
      await inTransaction(db, async (tx) => {
        await finishOperation(tx, { id, token, end: { state: "failed", ...error } })
        if (kind === "capture") await failSnapshot(tx, snapshotId ?? "", error)
        else await deleteInstance(tx, instanceId ?? "")
      })
      waker.wake("events")
    },
    async ended({ id, token, instanceId }) {
      await inTransaction(db, async (tx) => {
        await deleteInstance(tx, instanceId ?? "")
        await finishOperation(tx, { id, token, end: { state: "done" } })
      })
      waker.wake("events")
    },
    async captured({ id, token, snapshotId }, { compress = false } = {}) {
      await inTransaction(db, async (tx) => {
        await startCapture(tx, snapshotId ?? "")
        const row = await publishCapture(tx, snapshotId ?? "", {
          ...capturedPayload,
          payload: token,
          compress,
        })
        await finishOperation(tx, { id, token, end: { state: "done" } })
        if (row !== undefined) await appendSnapshotEvent(tx, "snapshot.captured", row)
      })
      waker.wake("events")
    },
    async compressed(snapshotId) {
      await publishCompressed(db, snapshotId, {
        memoryFile: "memory.zst",
        compressedBytes: 10,
        uncompressedBytes: 100,
        sizeBytes: 20,
        storedBytes: 20,
        sharedBytes: 10,
      })
      waker.wake("events")
    },
  }
}

const capturedPayload = {
  hypervisor: "qemu" as const,
  memoryFile: "memory",
  memorySha256: "0".repeat(64),
  manifestSha256: "0".repeat(64),
  sizeBytes: 100,
  storedBytes: 100,
  sharedBytes: 40,
  pauseMs: 5,
  capturedAt: new Date(0),
}
