import { processAlive, processesIn, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"

/** The VMs of a `DATA_DIR`, without a database. */
export interface HomeVms {
  /** Takes the VMs that work in these directories to those that are known. */
  look(generations: readonly string[]): Promise<void>
  /** True while a VM that is known lives: also where its directory has gone away since. */
  anyLives(): Promise<boolean>
}

export function openHomeVms(): HomeVms {
  let known: ProcessIdentity[] = []
  return {
    async look(generations) {
      if (generations.length > 0) known.push(...(await processesIn(generations)))
    },
    async anyLives() {
      const byPid = new Map(known.map((process) => [process.pid, process]))
      const alive = await Promise.all([...byPid.values()].map(processAlive))
      known = [...byPid.values()].filter((_, index) => alive[index])
      return known.length > 0
    },
  }
}
