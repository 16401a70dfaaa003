import { readdir, readFile } from "node:fs/promises"
import { isOutOfDescriptors } from "@stillframe/domain/errors"
import { identifyProcess, type ProcessIdentity } from "./processes.ts"

/**
 * Processes that are looked at together, each with an open file. One after the other costs three times the
 * processor time.
 */
const LOOKED_AT_TOGETHER = 16

/** The processes that have this word among their arguments, or this `NAME=value` in their environment. */
export async function* processesWith(
  file: "cmdline" | "environ",
  wanted: string,
): AsyncGenerator<ProcessIdentity> {
  const pids = (await readdir("/proc")).filter((entry) => /^\d+$/.test(entry))
  for (let first = 0; first < pids.length; first += LOOKED_AT_TOGETHER) {
    const some = pids.slice(first, first + LOOKED_AT_TOGETHER)
    const found = await Promise.all(some.map((pid) => processIfWith(pid, file, wanted)))
    for (const process of found) if (process !== undefined) yield process
  }
}

async function processIfWith(
  pid: string,
  file: "cmdline" | "environ",
  wanted: string,
): Promise<ProcessIdentity | undefined> {
  const words = await readFile(`/proc/${pid}/${file}`, "utf8").then(
    (text) => text.split("\0"),
    (error: NodeJS.ErrnoException): string[] => {
      // Else a VM that lives would be taken for one that has ended.
      if (isOutOfDescriptors(error)) throw error
      // It ended while we looked, or is another user's.
      return []
    },
  )
  return words.includes(wanted) ? await identifyProcess(Number(pid)) : undefined
}
