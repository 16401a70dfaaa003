import type { CompressionConfig } from "./compression.ts"
import { notHeardOf } from "./lost-host.ts"
import { restorableMembers } from "./restorable.ts"
import { shownReason } from "./text/reason.ts"
import type { Tags } from "./text/tags.ts"

/** The contract's five; `qemu-microvm` is QEMU with its microvm machine. */
export const hypervisors = ["cloud-hypervisor", "firecracker", "qemu", "qemu-microvm", "vz"] as const
export type Hypervisor = (typeof hypervisors)[number]

export const instanceStates = [
  "Created",
  "Initializing",
  "Running",
  "Paused",
  "Shutdown",
  "Stopped",
  "Standby",
  "Unknown",
] as const
export type InstanceState = (typeof instanceStates)[number]

/**
 * A state may only move to those on its right. `Paused`: the VM stands still and no capture is why, which
 * shows `Running`. `Unknown`: its hypervisor does not answer.
 */
const nextInstanceStates: Readonly<Record<InstanceState, readonly InstanceState[]>> = {
  Created: ["Initializing", "Stopped"],
  Initializing: ["Running", "Standby", "Stopped", "Shutdown", "Unknown"],
  Running: ["Paused", "Standby", "Stopped", "Shutdown", "Unknown"],
  // To itself when the reason changes.
  Paused: ["Running", "Paused", "Stopped", "Shutdown", "Unknown"],
  // To the same state again: by restoring a snapshot in place.
  Shutdown: ["Initializing", "Running", "Standby", "Stopped"],
  Stopped: ["Initializing", "Running", "Standby", "Stopped"],
  Standby: ["Initializing", "Running", "Standby", "Stopped"],
  // To itself when the reason changes.
  Unknown: ["Running", "Paused", "Stopped", "Shutdown", "Standby", "Unknown"],
}

/** The states that may move to `to`, for the `WHERE` of an update. */
export function instanceStatesBefore(to: InstanceState): InstanceState[] {
  return instanceStates.filter((from) => nextInstanceStates[from].includes(to))
}

/** The states of an instance that has a process. */
export function hasVm(state: InstanceState): boolean {
  return state === "Running" || state === "Paused" || state === "Unknown"
}

/** The states that the contract requires of a snapshot's source. */
export const captureStates = {
  Standby: ["Running", "Standby"],
  Stopped: ["Stopped"],
} as const satisfies Record<string, readonly InstanceState[]>

/**
 * The contract's rule; beyond it, an attached VM is captured as it stands, and tells itself whether it
 * answers again.
 */
export function mayCapture(
  kind: keyof typeof captureStates,
  state: InstanceState,
  attached: boolean,
): boolean {
  const states: readonly InstanceState[] = captureStates[kind]
  return states.includes(state) || (kind === "Standby" && hasVm(state) && attached)
}

/** The states that each call on an instance requires. */
export const actionStates = {
  stop: ["Running", "Paused", "Shutdown", "Unknown"],
  start: ["Stopped", "Shutdown"],
  standby: ["Running"],
  /** From its own memory on disk. */
  resume: ["Standby"],
  /** To a snapshot, in place. */
  restore: ["Stopped", "Standby", "Shutdown"],
} as const satisfies Record<string, readonly InstanceState[]>
export type InstanceAction = keyof typeof actionStates

/** The states that a restore or fork may end in. */
export const targetStates = ["Stopped", "Standby", "Running"] as const
export type TargetState = (typeof targetStates)[number]

export interface SnapshotPolicy {
  readonly compression?: CompressionConfig | undefined
  /** A Go duration, of the instance's own image. */
  readonly standby_compression_delay?: string
}

/** How far the import of a launch's files is. */
export interface ImportState {
  readonly bytes: number
  readonly total_bytes: number
  /** At the speed until now. */
  readonly seconds_left?: number
}

/** An instance's row, as far as callers see it. */
export interface InstanceRecord {
  readonly id: string
  readonly name: string
  readonly image: string
  readonly hypervisor: Hypervisor
  readonly host: string
  /** Set for a VM that its owner started, not Stillframe. */
  readonly attached: object | null
  readonly state: InstanceState
  readonly state_error: string | null
  /** Why its snapshots can be neither restored nor forked. */
  readonly restorable_reason: string | null
  readonly importing: ImportState | null
  readonly vcpus: number
  readonly memory_mib: number
  readonly tags: Tags
  readonly snapshot_policy: SnapshotPolicy | null
  readonly exit_code: number | null
  readonly exit_message: string | null
  readonly created_at: Date
  readonly started_at: Date | null
  readonly stopped_at: Date | null
  /**
   * Set when its host is not heard of. Absent where that was not asked, as in events: then the stored state
   * is shown.
   */
  readonly lost?: LostContact | null
}

/** How an instance stands whose host is not heard of. */
export interface LostContact {
  /** The host's last heartbeat, RFC 3339; null for a host that the database does not know. */
  readonly since: string | null
  /** A DELETE of the instance waits for the host. */
  readonly deleting: boolean
}

/** Only its host knows an instance's state: while the host is not heard of, the state is `Unknown`. */
export function shownState({ state, lost }: Pick<InstanceRecord, "state" | "lost">): InstanceState {
  return lost ? "Unknown" : state
}

export function shownStateError({
  host,
  state,
  state_error,
  lost,
}: Pick<InstanceRecord, "host" | "state" | "state_error" | "lost">): string | undefined {
  if (!lost) return state_error === null ? undefined : shownReason(state_error)
  const words = `${notHeardOf({ name: host, since: lost.since })}; the instance was ${state} then`
  return lost.deleting
    ? `${words}. It is being deleted: the host carries that out when it is back`
    : `${words}. Start the host's capture-worker, or forget the host with DELETE /hosts/${host}`
}

/**
 * The contract's `Instance`; `expires_at` is always there, the other optional members are left out. `host`
 * and `attached` are ours.
 */
export interface InstanceResource {
  readonly id: string
  readonly name: string
  readonly image: string
  readonly hypervisor: Hypervisor
  readonly host: string
  readonly attached?: true
  readonly state: InstanceState
  readonly state_error?: string
  /** Left out where its snapshots can be restored and forked. */
  readonly restorable?: false
  readonly restorable_reason?: string
  readonly importing?: ImportState
  readonly vcpus: number
  readonly size: string
  readonly tags?: Tags
  readonly snapshot_policy?: SnapshotPolicy
  readonly has_snapshot: boolean
  readonly exit_code?: number
  readonly exit_message?: string
  readonly created_at: string
  readonly started_at?: string
  readonly stopped_at?: string
  /** Null here: nothing of ours expires. */
  readonly expires_at: string | null
}

export function instanceResource(record: InstanceRecord): InstanceResource {
  const stateError = shownStateError(record)
  return {
    id: record.id,
    name: record.name,
    image: record.image,
    hypervisor: record.hypervisor,
    host: record.host,
    ...(record.attached !== null && { attached: true }),
    state: shownState(record),
    ...(stateError !== undefined && { state_error: stateError }),
    ...(record.state === "Initializing" && record.importing !== null && { importing: record.importing }),
    ...restorableMembers(record.restorable_reason),
    vcpus: record.vcpus,
    size: `${record.memory_mib} MB`,
    ...(Object.keys(record.tags).length > 0 && { tags: record.tags }),
    ...(record.snapshot_policy !== null && { snapshot_policy: record.snapshot_policy }),
    // A standby snapshot of the instance's own exists only while it is in Standby.
    has_snapshot: record.state === "Standby",
    ...(record.exit_code !== null && { exit_code: record.exit_code }),
    ...(record.exit_message !== null && { exit_message: shownReason(record.exit_message) }),
    created_at: record.created_at.toISOString(),
    ...(record.started_at !== null && { started_at: record.started_at.toISOString() }),
    ...(record.stopped_at !== null && { stopped_at: record.stopped_at.toISOString() }),
    expires_at: null,
  }
}
