import { stat } from "node:fs/promises"
import { canOpenAs, canRunAs } from "@stillframe/hypervisors/process/run-as"
import type { VmUser, VmUsers } from "@stillframe/hypervisors/process/vm-users"
import { trialUid, type HostUsers } from "./host-users.ts"

/** The users of a hypervisor's VMs, and the one of them that its trial runs as. */
interface HypervisorUsers {
  readonly vmUsers?: VmUsers
  readonly trialUser?: VmUser
  /** Why its VMs must be root where we are, to be told once the hypervisor is used in that way. */
  readonly asRoot?: string
}

/**
 * The users that a hypervisor's processes run as where we are root: the host's, or none where they must be
 * root too. `kvm`: the device that they must be able to open, whose group is then the only one that they
 * have.
 */
export async function vmUsers(
  binary: string,
  { name, kvm, users }: { name: string; kvm: string | undefined; users: HostUsers | undefined },
): Promise<HypervisorUsers> {
  if (users === undefined) return {}
  const { range, confined } = users
  const uid = trialUid(range)
  const gid = kvm === undefined ? range.first : await whoOpens(kvm, users)
  if (gid === undefined)
    return {
      asRoot: `${name} runs as root: only root can open ${kvm}; let a group of its own read and write it (chgrp kvm, chmod 660)`,
    }
  if (await canRunAs(binary, { uid, gid }, new AbortController().signal))
    return { vmUsers: { ...range, gid, confined }, trialUser: { uid, gid, confined } }
  return { asRoot: `${name} runs as root: its binary lies where no other user can execute it` }
}

/**
 * The group with which a VM's user can open a device. Undefined where it takes root, or root's own group. A
 * device that is missing keeps nobody from anything. Where no group is needed it is one that has no other
 * members: the range has no account.
 */
async function whoOpens(device: string, { range }: HostUsers): Promise<number | undefined> {
  const { signal } = new AbortController()
  const uid = trialUid(range)
  const found = await stat(device).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error
  })
  if (found === undefined || (await canOpenAs(device, { uid, gid: range.first }, signal))) return range.first
  const { gid } = found
  return gid !== 0 && (await canOpenAs(device, { uid, gid }, signal)) ? gid : undefined
}
