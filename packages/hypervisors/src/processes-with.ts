import { readdir, readFile } from "node:fs/promises"
import { isOutOfDescriptors } from "@stillframe/domain/errors"
import { identifyProcess, type ProcessIdentity } from "./processes.ts"

/** The processes that have this word among their arguments, or this `NAME=value` in their environment. */
export async function* processesWith(
  file: "cmdline" | "environ",
  wanted: string,
): AsyncGenerator<ProcessIdentity> {
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue
    const words = await readFile(`/proc/${entry}/${file}`, "utf8").then(
      (text) => text.split("\0"),
      (error: NodeJS.ErrnoException): string[] => {
        // Else a VM that lives would be taken for one that has ended.
        if (isOutOfDescriptors(error)) throw error
        // It ended while we looked, or is somebody else's.
        return []
      },
    )
    const process = words.includes(wanted) ? await identifyProcess(Number(entry)) : undefined
    if (process !== undefined) yield process
  }
}
