import { readdirSync, readFileSync } from "node:fs"
import { endProcess, identifyProcess } from "@stillframe/hypervisors/process/processes"
import { identityVariable } from "@stillframe/hypervisors/process/start-process"

/**
 * VMs outlive their worker by design; those of a test end with it. Reads all processes in one go, which
 * asking for each VM would not.
 */
export async function endVms(cluster: string): Promise<void> {
  const identity = `stillframe-${cluster}-`
  for (const entry of readdirSync("/proc")) {
    const words = [...wordsOf(entry, "cmdline"), ...wordsOf(entry, "environ")]
    if (!words.some((word) => namesOfVms.some((name) => word.startsWith(`${name}=${identity}`)))) continue
    const vm = await identifyProcess(Number(entry))
    if (vm !== undefined) await endProcess(vm, { graceMs: 0 })
  }
}

/** A VM's identity is an argument of QEMU, and a variable of the other hypervisors. */
const namesOfVms = ["guest", identityVariable]

function wordsOf(pid: string, file: "cmdline" | "environ"): string[] {
  if (!/^\d+$/.test(pid)) return []
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1").split("\0")
  } catch {
    // It ended while we looked.
    return []
  }
}
