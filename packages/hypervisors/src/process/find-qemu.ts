import { processesWith } from "./processes-with.ts"
import type { ProcessIdentity } from "./processes.ts"

/**
 * The QEMU process that was started under this identity, wherever it came from: by its `-name`, never by the
 * name of a binary, which differs between installations.
 */
export async function findQemu(identity: string): Promise<ProcessIdentity | undefined> {
  for await (const process of processesWith("cmdline", `guest=${identity}`)) return process
  return undefined
}
