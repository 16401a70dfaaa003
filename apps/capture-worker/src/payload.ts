import type { ClaimedOperation } from "@stillframe/db/operations"
import { openReader } from "@stillframe/db/readers"
import type { Database } from "@stillframe/db/schema"
import { lockSnapshot } from "@stillframe/db/snapshots"
import { requestVerification } from "@stillframe/db/verifications"
import { StillframeError } from "@stillframe/domain/errors"
import type { TargetState } from "@stillframe/domain/instance"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { payloadDir } from "@stillframe/storage/layout"
import { readManifest } from "@stillframe/storage/manifest"
import type { RestoreOrder } from "./orders.ts"
import type { Worker } from "./worker.ts"

/** What an instance is built from. */
export type Payload = Pick<RestoreOrder, "payloadDir" | "memoryFile" | "launch">

/** What the API wrote into the operation; it checked it against the snapshot's kind. */
export function targetOf({ params }: ClaimedOperation): TargetState {
  return params["target"] as TargetState
}

/** Has a snapshot verified whose files turned out to be damaged when they were used. */
export async function reportDamage(
  tx: Database,
  { snapshotId }: ClaimedOperation,
  { code }: StillframeError,
): Promise<void> {
  if (code !== "corrupted" || snapshotId === null) return
  const snapshot = await lockSnapshot(tx, snapshotId)
  if (snapshot !== undefined) await requestVerification(tx, snapshot)
}

/** Holds a snapshot's files while `work` reads them. */
export async function withPayload(
  { db, config, log }: Worker,
  snapshotId: string,
  work: (payload: Payload) => Promise<void>,
): Promise<void> {
  await using reader = await openReader(db, snapshotId, {
    onRenewalError: (err) => log.warn({ err, snapshotId }, "reader of a snapshot not renewed"),
  })
  const { snapshot } = reader
  const dir = payloadDir(config.storageDir, snapshot.id, snapshot.payload ?? "")
  const manifest = await readManifest(dir)
  if (manifest.not_restorable !== undefined)
    throw new StillframeError(
      "not_supported",
      `its VM was started with ${manifest.not_restorable}, which a VM of ours can't have; the snapshot can only be kept`,
    )
  const launch = manifest.launch as unknown as GuestConfig
  const { memory_file: memoryFile } = snapshot
  await work({ payloadDir: dir, launch, ...(memoryFile !== null && { memoryFile }) })
}
