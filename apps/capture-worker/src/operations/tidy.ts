import { rm } from "node:fs/promises"
import { join } from "node:path"
import { findInstance, type InstanceRow } from "@stillframe/db/instances/instances"
import { instanceBusy } from "@stillframe/db/operations/open-operations"
import { namesIn } from "@stillframe/storage/directory"
import { instanceDir, standbyDir } from "@stillframe/storage/layout"
import type { Worker } from "../worker.ts"

/**
 * Removes the generations and images of an instance that its row does not name and no operation may still be
 * at work on.
 */
export async function tidyInstance({ db, config, log }: Worker, { id }: InstanceRow): Promise<void> {
  if (await instanceBusy(db, id)) return
  // Read after the look at its operations: none that ends in between can have made what is removed here.
  const instance = await findInstance(db, id)
  if (instance === undefined) return
  const dir = instanceDir(config.dataDir, id)
  const images = standbyDir(config.dataDir, id)
  const generations = (await namesIn(dir)).filter((name) => /^\d+$/.test(name))
  const unnamed = [
    ...generations.filter((name) => Number(name) !== instance.generation).map((name) => join(dir, name)),
    ...(await namesIn(images))
      .filter((name) => name !== instance.standby_payload)
      .map((name) => join(images, name)),
  ]
  for (const path of unnamed) {
    log.info({ instanceId: id, path }, "removing what an unfinished operation left")
    await rm(path, { recursive: true, force: true })
  }
}
