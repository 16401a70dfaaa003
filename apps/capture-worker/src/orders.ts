import type { ErrorCode } from "@stillframe/domain/errors"
import type { LaunchConfig } from "@stillframe/hypervisors/launch-config"
import type { ProcessIdentity } from "@stillframe/hypervisors/processes"
import type { Manifest } from "@stillframe/storage/manifest"

/** What every order to a captor carries. A captor has no database and no queue: the order is all it knows. */
interface VmOrder {
  readonly clusterId: string
  readonly dataDir: string
  readonly instanceId: string
  readonly generation: number
  readonly operationId: string
  readonly token: string
  /** How long, from its arrival, the operation's lease can be trusted. */
  readonly leaseMs: number
  readonly qemu: QemuTools
}

export interface QemuTools {
  readonly binary: string
  readonly qemuImg: string
  readonly runAs?: { readonly uid: number; readonly gid: number } | undefined
}

export interface CaptureOrder extends VmOrder {
  readonly kind: "capture"
  readonly snapshotId: string
  readonly storageDir: string
  readonly instanceName: string
  readonly hypervisorVersion: string
  readonly launch: LaunchConfig
  readonly pauseExpectedMs: number
  readonly pauseLimitMs: number
}

export interface LaunchOrder extends VmOrder {
  readonly kind: "launch"
  readonly launch: LaunchConfig
  /** Directories that the launch's paths may lie under. */
  readonly hostPaths: readonly string[]
}

export interface ForkOrder extends VmOrder {
  readonly kind: "fork"
  readonly payloadDir: string
  readonly memoryFile: string
  readonly launch: LaunchConfig
}

/** Ends the VM's process if there is one, and removes all that the host has of the instance. */
export interface EndOrder extends VmOrder {
  readonly kind: "end"
}

export type Order = CaptureOrder | LaunchOrder | ForkOrder | EndOrder

/** What a captor answers with, by kind of order. */
export interface Results {
  capture: Manifest
  launch: ProcessIdentity
  fork: ProcessIdentity
  end: null
}

/** From the worker to its captor: the order once, then perhaps the word to stop. */
export type ToCaptor = { readonly order: Order } | { readonly abort: true }

/** From a captor to its worker: progress, then one end. */
export type FromCaptor =
  | { readonly progress: number }
  | { readonly result: Results[keyof Results] }
  | { readonly error: { readonly code: ErrorCode; readonly message: string } }
