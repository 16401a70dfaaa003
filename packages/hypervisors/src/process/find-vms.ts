import { findProcess } from "./find-process.ts"
import { findQemu } from "./find-qemu.ts"
import type { ProcessIdentity } from "./processes.ts"

/**
 * The processes that were started under this identity, of whichever hypervisor: a restore may have been on
 * its way to another one.
 */
export async function findVms(identity: string): Promise<ProcessIdentity[]> {
  const found = await Promise.all([findQemu(identity), findProcess(identity)])
  return found.filter((process) => process !== undefined)
}
