import { readFileSync } from "node:fs"
import { setTimeout as delay } from "node:timers/promises"

/**
 * What goes wrong, in `fault.json` in the working directory. For any operation: `refuse`, `ignore` (an answer
 * of success, and nothing is done), `hang` (it is done, and neither its answer nor any later one comes before
 * the file has changed) and `die`. For `save` also `enospc_state`, `enospc_memory`, `cut_state` and
 * `cut_memory` (an answer of success over short files), `hang_memory` (as `hang`, with the memory not begun)
 * and `slow`. For `load` also `enomem`, and for `guest` `obeys`, one that shuts down on Ctrl, Alt and Delete.
 */
export type Operation = "pause" | "resume" | "save" | "load" | "guest"

const pollMs = 10

export function fault(operation: Operation): string | undefined {
  try {
    return (JSON.parse(readFileSync("fault.json", "utf8")) as Partial<Record<Operation, string>>)[operation]
  } catch {
    return undefined
  }
}

export async function hang(operation: Operation, name = "hang"): Promise<void> {
  while (fault(operation) === name) await delay(pollMs)
}
