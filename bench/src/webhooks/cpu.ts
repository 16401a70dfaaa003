import { readdirSync, readFileSync } from "node:fs"

/**
 * Milliseconds that the threads of these processes have run on a processor. One that has ended counts for
 * nothing.
 */
export function cpuMs(pids: readonly number[]): number {
  return pids.flatMap(threadsOf).reduce((sum, schedstat) => sum + runNs(schedstat) / 1e6, 0)
}

function threadsOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`).map((thread) => `/proc/${pid}/task/${thread}/schedstat`)
  } catch {
    return []
  }
}

function runNs(schedstat: string): number {
  try {
    return Number(readFileSync(schedstat, "utf8").split(" ")[0])
  } catch {
    return 0
  }
}
