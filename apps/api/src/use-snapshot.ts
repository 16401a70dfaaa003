import type { InstanceRow } from "@stillframe/db/instances"
import { requireSound, type SnapshotRow } from "@stillframe/db/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import type { Hypervisor, TargetState } from "@stillframe/domain/instance"
import { snapshotTargets } from "@stillframe/domain/snapshot"
import { problem } from "./problem.ts"
import type { Answer, ApiDeps } from "./route.ts"
import { waitUntil } from "./wait.ts"

/** What a client that may not wait any longer for a capture should wait before it asks again. */
const retryAfterMs = 1_000

/** A snapshot that is no longer to be captured; while it is and the time is up, the answer that says so. */
export async function whenCaptured(
  deps: ApiDeps,
  read: () => Promise<SnapshotRow>,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<{ snapshot: SnapshotRow } | { answer: Answer }> {
  const look = async (): Promise<SnapshotRow | undefined> => {
    const current = await read()
    return current.status === "queued" || current.status === "capturing" ? undefined : current
  }
  const snapshot = await waitUntil(deps, look, options)
  if (snapshot !== undefined) return { snapshot }
  const message = "the snapshot is not captured yet; try again when its status is ready"
  return { answer: problem("conflict", message, { retry: true, retryAfterMs }) }
}

/** Throws `conflict` for one whose capture has failed, and for one in quarantine. */
export function requireUsable(snapshot: SnapshotRow, done: "forked" | "restored"): void {
  requireSound(snapshot)
  if (snapshot.status !== "failed") return
  const reason = snapshot.error_message ?? "its capture did not succeed"
  throw new StillframeError("conflict", `snapshot ${snapshot.id} has failed and can't be ${done}: ${reason}`)
}

/** Throws `not_supported` for snapshots of a VM that can't be started here as its owner started it. */
export function requireRestorable({ attached }: InstanceRow): void {
  const option = attached?.["option"]
  if (typeof option !== "string") return
  throw new StillframeError(
    "not_supported",
    `the VM's owner started it with ${option}, which a VM of ours can't have, so its snapshots can only be kept; start it without and attach it again`,
  )
}

/** What a restore or fork of a snapshot ends in. Throws `invalid_request` for what its kind does not allow. */
export function targetFor(
  { kind, source_hypervisor }: SnapshotRow,
  {
    target_state,
    target_hypervisor,
  }: { target_state?: TargetState | undefined; target_hypervisor?: Hypervisor | undefined },
): TargetState {
  const [unasked] = snapshotTargets[kind]
  const target = target_state ?? unasked
  if (!snapshotTargets[kind].includes(target))
    throw new StillframeError(
      "invalid_request",
      `target_state ${target} is not possible from a ${kind} snapshot; use ${snapshotTargets[kind].join(" or ")}`,
    )
  if (target_hypervisor === undefined) return target
  if (kind === "Standby")
    throw new StillframeError("invalid_request", "target_hypervisor is only allowed for stopped snapshots")
  if (target_hypervisor !== source_hypervisor)
    throw new StillframeError(
      "invalid_request",
      `unsupported target hypervisor "${target_hypervisor}"; the snapshot is of ${source_hypervisor}`,
    )
  return target
}
