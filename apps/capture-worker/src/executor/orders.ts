import type { ErrorCode } from "@stillframe/domain/errors"
import type { TargetState } from "@stillframe/domain/instance"
import type { ClockReading } from "@stillframe/domain/postgres/database-clock"
import type { CaptureMode } from "@stillframe/domain/snapshot"
import type { AttachedVm } from "@stillframe/hypervisors/attached"
import type { ImportProgress } from "@stillframe/hypervisors/disks/launch-files"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import type { Manifest } from "@stillframe/storage/manifest"
import type { RecordedProcess } from "../host/recorded-process.ts"
import type { AttachedInstance } from "./attached-instance.ts"

/** Which VM an order is for. A captor has no database and no queue: the order is all it knows. */
interface VmPlace {
  readonly clusterId: string
  readonly dataDir: string
  readonly instanceId: string
  readonly generation: number
}

/** Members that every order of an operation has. */
export interface OperationOrder extends VmPlace {
  readonly operationId: string
  readonly token: string
  /** How long, from its arrival, the operation's lease can be trusted. */
  readonly leaseMs: number
}

/** Members of an order that needs the VM's hypervisor. */
export interface VmOrder extends OperationOrder {
  readonly hypervisor: HypervisorTools
  readonly storageDir: string
}

/** Members of an order that saves a VM's state. */
export interface SaveOrder extends VmOrder {
  readonly instanceName: string
  /** As the worker found it at its start; that of a VM that runs may be another. */
  readonly hypervisorVersion: string
  /** Empty for an attached VM that can't be restored. */
  readonly launch: GuestConfig
  readonly memoryMib: number
  readonly pauseExpectedMs: number
  readonly pauseLimitMs: number
  /** For the moment of the capture: the host's wall clock may be wrong. */
  readonly clock: ClockReading
}

export interface CaptureOrder extends SaveOrder {
  readonly kind: "capture"
  readonly snapshotId: string
  readonly source: CaptureSource
  /** Set for a VM that runs. */
  readonly mode: CaptureMode
}

/** The source of a snapshot: the VM, its image in Standby, or its disks alone. */
export type CaptureSource =
  | { readonly state: "Running" }
  | AttachedSource
  | { readonly state: "Stopped" }
  | { readonly state: "Standby"; readonly payloadDir: string }

/** Saves a VM's memory beside its disks and ends its process. */
export interface StandbyOrder extends SaveOrder {
  readonly kind: "standby"
}

/** A running VM that someone else started. */
export interface AttachedSource {
  readonly state: "Attached"
  readonly vm: AttachedInstance
  readonly hostPaths: readonly string[]
}

/** Finds a VM that someone else started, and takes in what a restore of its snapshots needs beside them. */
export interface AttachOrder extends VmOrder {
  readonly kind: "attach"
  readonly controlSocket: string
  readonly pid?: number
  readonly binaries: readonly string[]
  readonly hostPaths: readonly string[]
}

/**
 * Makes sure that a VM that someone else started is as its owner has it; `forget` then removes what we have
 * of it.
 */
export interface ReleaseOrder extends VmPlace {
  readonly kind: "release"
  readonly token: string
  readonly hypervisor: HypervisorTools
  readonly vm: AttachedInstance
  readonly pauseExpectedMs: number
  readonly pauseLimitMs: number
  readonly forget: boolean
}

export interface LaunchOrder extends VmOrder {
  readonly kind: "launch"
  readonly launch: GuestConfig
  /** Directories that the launch's paths may lie under. */
  readonly hostPaths: readonly string[]
  /** The members of the request that a refusal by the hypervisor may be about. */
  readonly suspects: readonly string[]
}

/** Starts the VM again, cold, on the disks in its directory. */
export interface StartOrder extends VmOrder {
  readonly kind: "start"
  readonly launch: GuestConfig
}

/** Builds `generation` of an instance from a payload: a snapshot's, or its own of Standby. */
export interface RestoreOrder extends VmOrder {
  readonly kind: "restore"
  readonly payloadDir: string
  /**
   * The SHA-256 of its manifest as it was published. Absent for a snapshot of an earlier version, and for an
   * instance's own image.
   */
  readonly manifestSha256?: string
  /** Absent for kind Stopped, and where the memory is in the state. */
  readonly memoryFile?: string
  /**
   * By name, the SHA-256 of callers' files at their first verification; only snapshots of earlier versions
   * have such files.
   */
  readonly baseSha256?: Readonly<Record<string, string>>
  readonly target: TargetState
  readonly launch: GuestConfig
  /**
   * A new instance, whose guest goes on at once. A VM restored in place waits until the row names its
   * generation.
   */
  readonly isFork: boolean
}

export interface StopOrder extends VmOrder {
  readonly kind: "stop"
  /** Ended too, whatever its command line says. */
  readonly recorded?: RecordedProcess | undefined
  readonly guestMs: number
}

/** Shortens the VM's disk chains. */
export interface MergeOrder extends VmPlace {
  readonly kind: "merge"
}

/**
 * Ends the VM's process if there is one, and removes what was built for this generation, or all of the
 * instance.
 */
export interface EndOrder extends OperationOrder {
  readonly kind: "end"
  readonly remove: "generation" | "instance"
  /** Ended too, whatever its command line says. */
  readonly recorded?: RecordedProcess | undefined
}

export type Order =
  | CaptureOrder
  | StandbyOrder
  | AttachOrder
  | ReleaseOrder
  | LaunchOrder
  | StartOrder
  | RestoreOrder
  | StopOrder
  | MergeOrder
  | EndOrder

export interface Launched {
  readonly pid: number
  /** With the hashes of the images that its disks were imported as. */
  readonly launch: GuestConfig
}

/** The answer of a captor, by kind of order. */
export interface Results {
  capture: Manifest
  standby: Manifest
  attach: AttachedVm
  release: null
  launch: Launched
  start: ProcessIdentity
  /** Null when the target is not to run. */
  restore: ProcessIdentity | null
  stop: null
  merge: null
  end: null
}

/** The descriptor of a captor's channel: JSON, one message a line, both ways. */
export const captorChannelFd = 3
/**
 * The longest message. The manifest of 16 disks with a hundred layers each has 300 KiB, and JSON of this
 * length, whatever is in it, is parsed well within the 50 ms that the worker's event loop may be held.
 */
export const messageBytesMax = 384 * 1024
/**
 * The longest message of an error, and the most that the log keeps of a program's own words, in characters.
 */
export const wordsMax = 2_000

/**
 * From the worker to its captor: an order, then perhaps that nobody wants its result any more, or that the
 * worker stops and another one will look for it.
 */
export type ToCaptor = { readonly order: Order } | { readonly abort: true } | { readonly stop: true }

/**
 * From a captor to its worker: progress, then one end; after a success perhaps that it can take another
 * order.
 */
export type FromCaptor =
  | { readonly progress: number }
  | { readonly importing: ImportProgress }
  | { readonly result: Results[keyof Results] }
  | { readonly error: { readonly code: ErrorCode; readonly message: string; readonly said?: string } }
  | { readonly free: true }
