import type { AttachedVm } from "@stillframe/hypervisors/attached"

/** How a request names the VM to attach to. The API stored it, and checked its shape. */
export interface AttachRequest {
  readonly control_socket: string
  readonly pid?: number
  readonly allow_overlay?: boolean
}

/** A VM that someone else started, as its instance's row keeps it once it was found. */
export interface AttachedInstance extends Omit<AttachedVm, "standstill" | "blocked" | "launch"> {
  /** True if the VM may run on our overlays for a while. */
  readonly allowOverlay: boolean
  /** The first option of its command line that a VM of ours can't have: it can be captured, not restored. */
  readonly option?: string
}
