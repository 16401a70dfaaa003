import { chmod, lstat, mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { namesIn } from "@stillframe/storage/directory"
import { instanceDir } from "@stillframe/storage/layout"
import type { CaptureWorkerConfig } from "../config.ts"
import { readPauseRecord } from "../pause/pause-record.ts"

/** To be walked through by the users that VMs run as; what is in there says itself who may enter it. */
const walkedByAll = 0o711

/**
 * This host's own directory in `CAPTURE_STAGING`, without what captors that are dead left there: it counts
 * against the machine's memory. Undefined where the setting is.
 */
export async function openStaging({
  staging,
  dataDir,
  hostId,
}: Pick<CaptureWorkerConfig, "staging" | "dataDir"> & { readonly hostId: string }): Promise<
  string | undefined
> {
  if (staging === undefined) return undefined
  // Other installations of this machine may have the same tmpfs, on which anybody may make directories.
  const dir = join(staging, `stillframe-${hostId}`)
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const found = await lstat(dir)
  if (!found.isDirectory() || found.uid !== process.getuid?.())
    throw new StillframeError("conflict", `${dir} is not this service's own; remove it and start again`)
  await chmod(dir, walkedByAll)
  await removeForgotten(dir, dataDir)
  return dir
}

/** A captor that lives without its worker still needs what it staged, and its pause record says so. */
async function removeForgotten(dir: string, dataDir: string): Promise<void> {
  const instances = await namesIn(join(dataDir, "instances"))
  const records = await Promise.all(instances.map((id) => readPauseRecord(instanceDir(dataDir, id))))
  for (const name of await namesIn(dir))
    if (!records.some((record) => record !== undefined && name.startsWith(`saving-${record.token}.`)))
      await rm(join(dir, name), { recursive: true, force: true })
}
