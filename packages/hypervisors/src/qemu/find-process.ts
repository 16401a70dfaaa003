import { readdir, readFile } from "node:fs/promises"
import { identifyProcess, type ProcessIdentity } from "../processes.ts"

/**
 * The QEMU process that was started under this identity, wherever it came from: by its `-name`, never by the name of a
 * binary, which differs between installations.
 */
export async function findQemu(identity: string): Promise<ProcessIdentity | undefined> {
  const name = `guest=${identity}`
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue
    const words = await readFile(`/proc/${entry}/cmdline`, "utf8").then(
      (text) => text.split("\0"),
      // It ended while we looked.
      (): string[] => [],
    )
    if (words.includes(name)) return identifyProcess(Number(entry))
  }
  return undefined
}
