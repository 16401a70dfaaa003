import { readFileSync } from "node:fs"

export interface Fault {
  readonly does:
    | "hang"
    /** Until `fault.json` says something else. */
    | "hold"
    | "exit"
    | "exit_after"
    | "reset"
    | "refuse"
    | "slow"
    | "half_pause"
    | "full"
    | "power_off"
    | "ignore"
  /** Only the first so many requests. */
  readonly times?: number
  readonly ms?: number
  /** Of a save: the file for which the disk had no room. */
  readonly file?: string
}

const taken = new Map<string, number>()

/**
 * What is to go wrong with this request, by `fault.json` as it is now:
 * `{"vm.pause": {"does": "refuse", "times": 1}}`.
 */
export function takeFault(request: string): Fault | undefined {
  const fault = readFaults()[request]
  const count = taken.get(request) ?? 0
  if (fault === undefined || count >= (fault.times ?? Infinity)) return undefined
  taken.set(request, count + 1)
  return fault
}

function readFaults(): Record<string, Fault | undefined> {
  try {
    return JSON.parse(readFileSync("fault.json", "utf8")) as Record<string, Fault>
  } catch {
    return {}
  }
}
