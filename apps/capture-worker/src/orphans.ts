import { join } from "node:path"
import { orphanedInstances } from "@stillframe/db/instances"
import { counted } from "@stillframe/domain/counted"
import { openTrouble, type Outage } from "@stillframe/domain/outage"
import type { Problem } from "@stillframe/domain/problem"
import { findVms } from "@stillframe/hypervisors/find-vms"
import { namesIn } from "@stillframe/storage/directory"
import { instanceDir } from "@stillframe/storage/layout"
import { identityOf } from "./carry-out-launch.ts"
import type { Worker } from "./worker.ts"

const intervalMs = 60_000
const shownMax = 10

type Deps = Pick<Worker, "clusterId" | "db" | "log" | "problems"> & {
  readonly config: Pick<Worker["config"], "dataDir">
}

/**
 * Looks, now and every minute, for instances on this host's disk that no row has: the host was forgotten while it was away. Their
 * VMs and files are only reported, because an operator may have been wrong about the host.
 */
export function watchOrphans(worker: Deps): AsyncDisposable {
  const trouble = openTrouble(worker.log, { lost: "orphaned instances not looked for" })
  let looking = look(worker, trouble)
  const timer = setInterval(() => {
    looking = looking.then(() => look(worker, trouble))
  }, intervalMs)
  return {
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await looking
    },
  }
}

async function look(worker: Deps, trouble: Outage): Promise<void> {
  try {
    worker.problems.set("orphans", await orphansOf(worker))
    trouble.worked()
  } catch (error) {
    trouble.failed(error)
  }
}

/** Undefined when every instance directory with files belongs to an instance. */
export async function orphansOf({ clusterId, db, config: { dataDir } }: Deps): Promise<Problem | undefined> {
  // Directories before rows: an instance that is being made has its row first.
  const ids = await namesIn(join(dataDir, "instances"))
  const orphans: string[] = []
  for (const id of await orphanedInstances(db, ids)) {
    if ((await namesIn(instanceDir(dataDir, id))).length === 0) continue
    const vms = await findVms(identityOf({ clusterId, instanceId: id }))
    orphans.push(
      vms.length === 0 ? id : `${id} (its VM runs as process ${vms.map(({ pid }) => pid).join(", ")})`,
    )
  }
  if (orphans.length === 0) return undefined
  const shown = [...orphans.slice(0, shownMax), ...(orphans.length > shownMax ? ["…"] : [])]
  return {
    code: "orphaned_instances",
    message: `${counted(orphans.length, "directory", "directories")} in DATA_DIR/instances without an instance, because this host was forgotten while it was away: ${shown.join(", ")}. Nothing ends the VMs or removes the files: save what is needed, then end the processes and remove the files`,
  }
}
