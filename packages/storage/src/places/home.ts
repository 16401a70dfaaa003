import { join } from "node:path"
import { createId } from "@stillframe/domain/ids"
import { makeDirectory, namesIn } from "../directory.ts"
import { createDurably } from "../durable.ts"
import { inOwnDirectory } from "../own-directory.ts"
import { unavailable } from "../unavailable.ts"
import { clusterFileSchema, readIdFile } from "./id-file.ts"
import { placeAt, type Place } from "./place.ts"

/** The database's facts about a host. */
export interface KnownHost {
  readonly name: string
  readonly installation: string
  /** Undefined: it was never up. */
  readonly hostId: string | undefined
  /** How many instances it has: their files lie in its `DATA_DIR`. */
  readonly instances: number
}

const filePath = (dataDir: string, name: string): string => join(dataDir, name)

/**
 * Makes sure that `dataDir` is the one that the database means by this host, and resolves with the host's id;
 * a new host gets it here. Throws `storage_unavailable` where the host's instances have their files in
 * another directory.
 */
export async function claimHome(dataDir: string, known: KnownHost): Promise<string> {
  const owner = await assertOwn(dataDir, known.installation)
  const id = await readHostId(dataDir)
  if (known.instances > 0 && known.hostId !== undefined && id !== known.hostId)
    throw otherHome(dataDir, id, known)
  if (owner === undefined) await assertNew(dataDir, known)
  return takeIn(dataDir, known.installation)
}

/**
 * Resolves with the installation that `dataDir` names. Throws `storage_unavailable` where that is another.
 */
export async function assertOwn(dataDir: string, installation: string): Promise<string | undefined> {
  const owner = (await readIdFile(filePath(dataDir, "cluster.json"), clusterFileSchema))?.id
  if (owner === undefined || owner === installation) return owner
  throw unavailable(
    `DATA_DIR ${dataDir} belongs to the installation ${owner}, the database to ${installation}`,
    "Point DATA_DIR and DATABASE_URL at the same one.",
  )
}

/** The id in `host.json`; undefined where there is none. */
export async function readHostId(dataDir: string): Promise<string | undefined> {
  return (await readIdFile(filePath(dataDir, "host.json"), clusterFileSchema))?.id
}

/** `DATA_DIR` of a host whose id is known. */
export function homePlace(dataDir: string, hostId: string): Place {
  return placeAt("DATA_DIR", dataDir, async () => {
    const found = await readHostId(dataDir)
    if (found === hostId) return
    const seen = found === undefined ? "its host.json is missing" : `its host.json says ${found}`
    throw unavailable(
      `DATA_DIR of the host is not the directory with the id ${hostId}: ${seen}`,
      "Mount its disk there.",
    )
  })
}

/** Gives a directory the two files that say whose it is, where it lacks them. */
export async function takeIn(dataDir: string, installation: string): Promise<string> {
  await inOwnDirectory("DATA_DIR", dataDir, async () => {
    await makeDirectory(dataDir)
    await createDurably(filePath(dataDir, "host.json"), `${JSON.stringify({ id: createId() })}\n`)
    await createDurably(filePath(dataDir, "cluster.json"), `${JSON.stringify({ id: installation })}\n`)
  })
  const id = await readHostId(dataDir)
  if (id !== undefined) return id
  throw unavailable(
    `DATA_DIR ${dataDir} has lost its host.json just now`,
    "Look what else uses that directory.",
  )
}

async function assertNew(dataDir: string, { installation }: KnownHost): Promise<void> {
  const contents = await namesIn(join(dataDir, "instances"))
  if (contents.length === 0) return
  throw unavailable(
    `DATA_DIR ${dataDir} says nothing of its owner but holds instances: ${contents.slice(0, 3).join(", ")}`,
    `If they are of this installation, write {"id":"${installation}"} into ${filePath(dataDir, "cluster.json")}.`,
  )
}

function otherHome(dataDir: string, id: string | undefined, { name, hostId, instances }: KnownHost): Error {
  return unavailable(
    `DATA_DIR ${dataDir} ${id === undefined ? "has no host.json" : `is that of the host with the id ${id}`}, and the files of instances of host "${name}" (${instances}) lie in that with the id ${hostId}`,
    "Mount its disk there. If this is another machine, set HOST_NAME to a name of its own. If the files are lost: `stillframe storage init --host`.",
  )
}
