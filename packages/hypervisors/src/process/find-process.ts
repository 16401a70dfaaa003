import { processesWith } from "./processes-with.ts"
import type { ProcessIdentity } from "./processes.ts"
import { identityVariable } from "./start-process.ts"

/**
 * The process that was started under this identity, by its environment: most VMMs have no argument that could
 * hold it.
 */
export async function findProcess(identity: string): Promise<ProcessIdentity | undefined> {
  for await (const process of processesWith("environ", `${identityVariable}=${identity}`)) return process
  return undefined
}
