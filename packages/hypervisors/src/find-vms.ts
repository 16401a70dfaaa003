import { findProcess } from "./find-process.ts"
import type { ProcessIdentity } from "./processes.ts"
import { findQemu } from "./qemu/find-process.ts"

/** The processes that were started under this identity, of whichever hypervisor: a restore may have been on its way to another one. */
export async function findVms(identity: string): Promise<ProcessIdentity[]> {
  const found = await Promise.all([findQemu(identity), findProcess(identity)])
  return found.filter((process) => process !== undefined)
}
