import { stat } from "node:fs/promises"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import { canOpenAs, canRunAs } from "@stillframe/hypervisors/run-as"
import type { Logger } from "@stillframe/runtime/logger"

/** Nobody's: no account has it, so a hypervisor that is broken out of owns nothing but its VM's directory. */
const nobodys = 64_055

type VmUser = NonNullable<HypervisorTools["runAs"]>

/**
 * The user that a hypervisor's processes run as where we are root; undefined, with a warning that says why, where they must
 * be root too. `kvm`: the device that they must be able to open, whose group is then the only one that they have.
 */
export async function vmUser(
  binary: string,
  { name, kvm, log }: { name: string; kvm: string | undefined; log: Logger },
): Promise<VmUser | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const user =
    kvm === undefined ? { uid: nobodys, gid: nobodys } : await whoOpens(kvm, new AbortController().signal)
  if (user === undefined) {
    log.warn(
      { hypervisor: name, device: kvm },
      `${name} runs as root: only root can open ${kvm}; let a group of its own read and write it (chgrp kvm, chmod 660)`,
    )
    return undefined
  }
  if (await canRunAs(binary, user, new AbortController().signal)) return user
  log.warn({ binary }, `${name} runs as root: its binary lies where no other user can execute it`)
  return undefined
}

/** Undefined where it takes root, or root's own group. A device that is missing keeps nobody from anything. */
async function whoOpens(device: string, signal: AbortSignal): Promise<VmUser | undefined> {
  const found = await stat(device).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error
  })
  const nobody = { uid: nobodys, gid: nobodys }
  if (found === undefined || (await canOpenAs(device, nobody, signal))) return nobody
  const member = { uid: nobodys, gid: found.gid }
  return found.gid !== 0 && (await canOpenAs(device, member, signal)) ? member : undefined
}
