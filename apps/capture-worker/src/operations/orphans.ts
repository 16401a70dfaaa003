import { join } from "node:path"
import {
  findInstance,
  forgottenInstance,
  orphanedInstances,
  type InstanceRow,
} from "@stillframe/db/instances/instances"
import { instanceBusy } from "@stillframe/db/operations/open-operations"
import { openTrouble, type Outage } from "@stillframe/domain/postgres/outage"
import type { Problem } from "@stillframe/domain/problem"
import { counted } from "@stillframe/domain/text/counted"
import { attachedVms } from "@stillframe/hypervisors/hypervisor-of"
import { findVms } from "@stillframe/hypervisors/process/find-vms"
import { namesIn, removeEmpty } from "@stillframe/storage/directory"
import { instanceDir } from "@stillframe/storage/layout"
import { identityOf } from "../host/vm-identity.ts"
import type { Worker } from "../worker.ts"

const intervalMs = 60_000
const shownMax = 10

type Deps = Pick<Worker, "clusterId" | "db" | "log" | "problems"> & {
  readonly config: Pick<Worker["config"], "dataDir">
  /** Makes sure that an attached VM runs on its owner's files only. */
  readonly leadBack: (instance: InstanceRow) => Promise<void>
}

/**
 * Looks, now and every minute, for instances on this host's disk that no row has: the host was forgotten
 * while it was away. Their VMs and files are only reported, because an operator may have been wrong about the
 * host. Attached VMs are led back from overlays that a capture left them on: their owners know nothing of
 * those.
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
    await leadBackForgotten(worker)
    await removeEmptied(worker)
    worker.problems.set("orphans", await orphansOf(worker))
    trouble.worked()
  } catch (error) {
    trouble.failed(error)
  }
}

async function leadBackForgotten({ db, config: { dataDir }, leadBack, log }: Deps): Promise<void> {
  const { usesOverlays } = await attachedVms()
  for (const id of await orphanedInstances(db, await namesIn(join(dataDir, "instances")))) {
    if (!(await usesOverlays(instanceDir(dataDir, id)))) continue
    const instance = await forgottenInstance(db, id)
    if (instance === undefined) continue
    // It is tried again with the next look.
    await leadBack(instance).catch((err: unknown) =>
      log.warn({ err, instanceId: id }, "attached vm of a forgotten host still uses overlays"),
    )
  }
}

/** Failed forks of earlier versions left the directory of their instance, with nothing in it. */
export async function removeEmptied({ db, config: { dataDir } }: Pick<Deps, "db" | "config">): Promise<void> {
  // Directories before rows: an instance that is being made has its row first.
  for (const id of await namesIn(join(dataDir, "instances"))) {
    const dir = instanceDir(dataDir, id)
    if ((await namesIn(dir)).length > 0) continue
    if ((await findInstance(db, id)) === undefined && !(await instanceBusy(db, id))) await removeEmpty(dir)
  }
}

const onOverlays =
  "its attached VM may still use the overlays in its overlays.json: keep that until they are written back, as docs/attached-vms.md says"

/** Undefined when every instance directory with files belongs to an instance. */
export async function orphansOf({
  clusterId,
  db,
  config: { dataDir },
}: Omit<Deps, "leadBack">): Promise<Problem | undefined> {
  // Directories before rows: an instance that is being made has its row first.
  const ids = await namesIn(join(dataDir, "instances"))
  const { usesOverlays } = await attachedVms()
  const orphans: string[] = []
  for (const id of await orphanedInstances(db, ids)) {
    if ((await namesIn(instanceDir(dataDir, id))).length === 0) continue
    const vms = await findVms(identityOf({ clusterId, instanceId: id }))
    const details = vms.length === 0 ? [] : [`its VM runs as process ${vms.map(({ pid }) => pid).join(", ")}`]
    if (await usesOverlays(instanceDir(dataDir, id))) details.push(onOverlays)
    orphans.push(details.length === 0 ? id : `${id} (${details.join("; ")})`)
  }
  if (orphans.length === 0) return undefined
  const shown = [...orphans.slice(0, shownMax), ...(orphans.length > shownMax ? ["…"] : [])]
  return {
    code: "orphaned_instances",
    message: `${counted(orphans.length, "directory", "directories")} in DATA_DIR/instances without an instance, because this host was forgotten while it was away: ${shown.join(", ")}. Nothing ends the VMs or removes the files: save what is needed, then end the processes and remove the files`,
  }
}
