import { mkdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import { z } from "zod"
import { writeDurably } from "./durable.ts"

const idFile = z.object({ id: z.string() })

/**
 * Makes sure that `dir` belongs to the installation whose id the database holds. An empty directory is taken in; one that
 * holds files but no `cluster.json` may be the mount point of a pool that is not mounted, and one with another id belongs
 * to another installation: both throw `conflict` naming what to do.
 */
export async function claimDirectory(
  dir: string,
  clusterId: string,
  contents: readonly string[],
): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const path = join(dir, "cluster.json")
  const known = await readIdFile(path)
  if (known === clusterId) return
  if (known !== undefined) {
    throw new StillframeError(
      "conflict",
      `${dir} belongs to the installation ${known}, the database to ${clusterId}; point DATA_DIR, STORAGE_DIR and DATABASE_URL at the same one`,
    )
  }
  if (contents.length > 0) {
    throw new StillframeError(
      "conflict",
      `${path} is missing but the directory holds ${contents.slice(0, 3).join(", ")}; mount the pool, or write {"id":"${clusterId}"} there if it is this installation's`,
    )
  }
  await writeDurably(path, `${JSON.stringify({ id: clusterId })}\n`)
}

/** This machine's random id in `DATA_DIR/host.json`, made once: a name alone could be held by two machines. */
export async function hostId(dataDir: string): Promise<string> {
  const path = join(dataDir, "host.json")
  const known = await readIdFile(path)
  if (known !== undefined) return known
  await writeDurably(path, `${JSON.stringify({ id: createId() })}\n`)
  return hostId(dataDir)
}

/** The id in a `cluster.json` or `host.json`; undefined where there is no file. */
async function readIdFile(path: string): Promise<string | undefined> {
  try {
    return idFile.parse(JSON.parse(await readFile(path, "utf8"))).id
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw new StillframeError("conflict", `${path} can't be understood; restore it from a backup`, {
      cause: error,
    })
  }
}
