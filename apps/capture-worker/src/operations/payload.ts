import type { ClaimedOperation } from "@stillframe/db/operations/operations"
import type { Database } from "@stillframe/db/schema"
import { openReader } from "@stillframe/db/snapshots/readers"
import { lockSnapshot, type SnapshotRow } from "@stillframe/db/snapshots/snapshots"
import { requestVerification } from "@stillframe/db/snapshots/verifications"
import { StillframeError } from "@stillframe/domain/errors"
import type { Hypervisor, TargetState } from "@stillframe/domain/instance"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { unlaunchable } from "@stillframe/domain/restorable"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { payloadDir } from "@stillframe/storage/layout"
import { readManifest, requireFiles } from "@stillframe/storage/manifest"
import type { RestoreOrder } from "../executor/orders.ts"
import { hostHypervisor } from "../host/host-hypervisor.ts"
import type { Worker } from "../worker.ts"

/** The source of an instance. */
export type Payload = Pick<
  RestoreOrder,
  "payloadDir" | "manifestSha256" | "memoryFile" | "launch" | "baseSha256"
>

/** Written by the API, which checked it against the snapshot's kind. */
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

/** The hypervisor of what is built from a snapshot. Absent where an instance's own image is put back. */
export function hypervisorIn({ params }: ClaimedOperation): Hypervisor | undefined {
  return params["hypervisor"] as Hypervisor | undefined
}

/**
 * Holds a snapshot's files while `work` reads them, to build a VM of `hypervisor` from them, and resolves
 * with its result. Throws `corrupted` for files that are missing, `storage_unavailable` where their pool is.
 */
export async function withPayload<T>(
  worker: Worker,
  operation: ClaimedOperation,
  hypervisor: Hypervisor,
  work: (payload: Payload) => Promise<T>,
): Promise<T> {
  const { db, config, log, pool } = worker
  const snapshotId = operation.snapshotId ?? ""
  const trouble = openTrouble(log, { lost: `reader of snapshot ${snapshotId} not renewed` })
  await using reader = await openReader(db, snapshotId, { onRenewalError: trouble.failed })
  const { snapshot } = reader
  if (snapshot.pool !== config.pool)
    throw new StillframeError(
      "storage_unavailable",
      `snapshot ${snapshot.id} lies in the pool "${snapshot.pool}", and its host has "${config.pool}" now. Set STORAGE_POOL and STORAGE_DIR of that host to the former`,
    )
  return await pool.during(() => read(worker, snapshot, { hypervisor, work }))
}

async function read<T>(
  worker: Worker,
  snapshot: SnapshotRow,
  { hypervisor, work }: { hypervisor: Hypervisor; work: (payload: Payload) => Promise<T> },
): Promise<T> {
  const dir = payloadDir(worker.config.storageDir, snapshot.id, snapshot.payload ?? "")
  const manifest = await readManifest(dir, snapshot.manifest_sha256)
  const { memory_file: memoryFile, base_sha256: baseSha256 } = snapshot
  await requireFiles(dir, manifest, memoryFile ?? undefined)
  if (manifest.not_restorable !== undefined)
    throw new StillframeError("not_supported", unlaunchable(manifest.not_restorable))
  const captured = manifest.launch as unknown as GuestConfig
  const launch =
    manifest.hypervisor.name === hypervisor ? captured : hostHypervisor(worker, hypervisor).adopt(captured)
  return await work({
    payloadDir: dir,
    launch,
    baseSha256,
    ...(snapshot.manifest_sha256 !== null && { manifestSha256: snapshot.manifest_sha256 }),
    ...(memoryFile !== null && { memoryFile }),
  })
}
