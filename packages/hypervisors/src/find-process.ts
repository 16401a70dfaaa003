import { readdir, readFile } from "node:fs/promises"
import { identifyProcess, type ProcessIdentity } from "./processes.ts"
import { identityVariable } from "./start-process.ts"

/** The process that was started under this identity, by its environment: most VMMs have no argument that could hold it. */
export async function findProcess(identity: string): Promise<ProcessIdentity | undefined> {
  const mark = `${identityVariable}=${identity}`
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue
    const variables = await readFile(`/proc/${entry}/environ`, "utf8").then(
      (text) => text.split("\0"),
      // It ended while we looked, or is another user's.
      (): string[] => [],
    )
    if (variables.includes(mark)) return identifyProcess(Number(entry))
  }
  return undefined
}
