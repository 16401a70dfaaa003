import { capabilitiesOf } from "@stillframe/db/hosts/hosts"
import type { InstanceRow } from "@stillframe/db/instances/instances"
import type { Database } from "@stillframe/db/schema"
import { requireSound, type ShownSnapshot, type SnapshotRow } from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { guestObstacle } from "@stillframe/domain/hypervisor-needs"
import type { Hypervisor, TargetState } from "@stillframe/domain/instance"
import { snapshotTargets } from "@stillframe/domain/snapshot"
import { shownReason } from "@stillframe/domain/text/reason"
import type { ApiDeps } from "../http/deps.ts"
import { problem } from "../http/problem.ts"
import type { Answer } from "../http/route.ts"
import { waitUntil } from "../http/wait.ts"
import { offeredBy } from "../instances/choose-host.ts"
import { requireCaptor } from "../instances/require-host.ts"

/** A client whose wait for a capture is over should ask again after this time. */
const retryAfterMs = 1_000

/**
 * A snapshot that is no longer to be captured; while it is and the time is up, the answer that says so.
 * Throws `unavailable` when its host is not up.
 */
export async function whenCaptured(
  deps: ApiDeps,
  read: () => Promise<ShownSnapshot>,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<{ snapshot: SnapshotRow } | { answer: Answer }> {
  const look = async (): Promise<SnapshotRow | undefined> => {
    const current = await read()
    if (current.status !== "queued" && current.status !== "capturing") return current
    await requireCaptor(deps.db, current)
    return undefined
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

/** Throws `not_supported` with the reason that the snapshot shows. */
export function requireRestorable({ restorable_reason }: Pick<SnapshotRow, "restorable_reason">): void {
  if (restorable_reason !== null) throw new StillframeError("not_supported", shownReason(restorable_reason))
}

/** The target of a fork or restore. */
export interface SnapshotUse {
  readonly target: TargetState
  readonly hypervisor: Hypervisor
}

interface AskedUse {
  readonly target_state?: TargetState | undefined
  readonly target_hypervisor?: Hypervisor | undefined
}

/**
 * The hypervisor of an instance that is made from a snapshot: not its source's, which may have changed since.
 */
export function hypervisorFor(
  { source_hypervisor }: Pick<SnapshotRow, "source_hypervisor">,
  { target_hypervisor }: AskedUse,
): Hypervisor {
  return target_hypervisor ?? source_hypervisor
}

/**
 * Resolves a restore or fork on `host` to its target state and hypervisor. Throws `invalid_request` for a
 * target that the kind of the snapshot, the host or the guest does not allow.
 */
export async function useOf(
  db: Database,
  snapshot: Pick<SnapshotRow, "kind" | "host" | "source_hypervisor">,
  source: Pick<InstanceRow, "launch" | "vcpus">,
  asked: AskedUse,
): Promise<SnapshotUse> {
  const { kind } = snapshot
  const [unasked] = snapshotTargets[kind]
  const target = asked.target_state ?? unasked
  if (!snapshotTargets[kind].includes(target))
    throw invalid(
      `target_state ${target} is not possible from a ${kind} snapshot; use ${snapshotTargets[kind].join(" or ")}`,
    )
  const { target_hypervisor } = asked
  if (target_hypervisor !== undefined) await checkTarget(db, snapshot, source, target_hypervisor)
  return { target, hypervisor: hypervisorFor(snapshot, asked) }
}

async function checkTarget(
  db: Database,
  { kind, host, source_hypervisor }: Pick<SnapshotRow, "kind" | "host" | "source_hypervisor">,
  { launch, vcpus }: Pick<InstanceRow, "launch" | "vcpus">,
  target: Hypervisor,
): Promise<void> {
  // A saved memory is no other hypervisor's, and its devices' state neither.
  if (kind === "Standby") throw invalid("target_hypervisor is only allowed for stopped snapshots")
  const hypervisors = (await capabilitiesOf(db, host)) ?? {}
  if (hypervisors[target] === undefined)
    throw invalid(
      `unsupported target hypervisor "${target}"; host "${host}" offers: ${offeredBy([{ hypervisors }])}`,
    )
  if (target === source_hypervisor) return
  const obstacle = guestObstacle(target, { kernel: launch["kernel"], vcpus })
  if (obstacle !== undefined) throw invalid(obstacle)
}

function invalid(message: string): StillframeError {
  return new StillframeError("invalid_request", message)
}
