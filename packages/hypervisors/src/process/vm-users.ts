/**
 * The unprivileged user that one VM's process runs as where this process is root. Plain data: it travels with
 * orders.
 */
export interface VmUser {
  readonly uid: number
  /** The same for all VMs of a hypervisor; no file of a VM is open to it. */
  readonly gid: number
  /** In namespaces of its own, as `confine` says. */
  readonly confined?: boolean
}

/** The users that the VMs of a host run as, each VM as another one of them. */
export interface VmUsers extends Omit<VmUser, "uid"> {
  readonly first: number
  readonly last: number
}

/** True for a user that VMs run as. */
export function isVmUser({ first, last }: Pick<VmUsers, "first" | "last">, uid: number): boolean {
  return uid >= first && uid <= last
}
