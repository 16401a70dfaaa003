import { constants } from "node:fs/promises"
import { join } from "node:path"
import type { StillframeError } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import { counted } from "@stillframe/domain/text/counted"
import { makeDirectory, namesIn } from "../directory.ts"
import { exists } from "../exists.ts"
import { manifestName, payloadDir } from "../layout.ts"
import { assertAccess, inOwnDirectory } from "../own-directory.ts"
import { unavailable } from "../unavailable.ts"
import { clusterFileSchema, readIdFile } from "./id-file.ts"
import type { KnownPool, PoolRegister } from "./known-pool.ts"
import { createPoolFile, readPoolFile, type PoolFile } from "./pool-file.ts"

/**
 * Makes sure that `dir` is the pool that the database means, and resolves with its identity. A new pool gets
 * its id here, and so does one of an older version whose files are found. Throws `storage_unavailable` with
 * both ids and the remedy.
 */
export async function claimPool(dir: string, register: PoolRegister): Promise<PoolFile> {
  const { id: known, installation } = await register.look()
  await assertAccess("STORAGE_DIR", dir, constants.X_OK)
  const found = await readPoolFile(dir)
  if (found !== undefined && found.id === known && found.installation === installation) return found
  const id = await register.settle(async (now) => {
    const settled = await decide(dir, now)
    return { id: settled, taken: await presentHere(dir, settled, now) }
  })
  return { id, installation }
}

/**
 * Two machines may each have had a directory under one pool's name. The snapshots in this one now belong to
 * this pool.
 */
async function presentHere(dir: string, id: string, { pools, strays }: KnownPool): Promise<string[]> {
  const present: string[] = []
  // One directory under two names is both of them.
  const names = new Set(pools.filter((pool) => pool.id === id).map(({ name }) => name))
  for (const { snapshotId, payload, pool } of strays)
    if (!names.has(pool) && (await exists(join(payloadDir(dir, snapshotId, payload), manifestName))))
      present.push(snapshotId)
  return present
}

/** The file comes first: after a crash in between, the next start finds it and names its id in the row. */
async function decide(dir: string, known: KnownPool): Promise<string> {
  const found = await readPoolFile(dir)
  if (found !== undefined) return idOf(dir, found, known)
  // A disk that is mounted read-only has no file of ours because it could not get one.
  await assertAccess("STORAGE_DIR", dir, constants.W_OK)
  if (known.id !== undefined) throw absent(dir, known)
  await assertAdoptable(dir, known)
  return makePool(dir, known.installation)
}

/** Makes `dir` a pool with a new id, or finds out that another process just has. */
export async function makePool(dir: string, installation: string): Promise<string> {
  return inOwnDirectory("STORAGE_DIR", dir, async () => {
    await makeDirectory(join(dir, "snapshots"))
    const made = await createPoolFile(dir, { id: createId(), installation })
    if (made?.installation === installation) return made.id
    throw ofOthers(dir, made?.installation, installation)
  })
}

async function idOf(dir: string, found: PoolFile, known: KnownPool): Promise<string> {
  if (found.installation !== known.installation) throw ofOthers(dir, found.installation, known.installation)
  if (found.id === known.id) return found.id
  const other = known.pools.find(({ id }) => id === found.id)
  if (known.id === undefined && (await holdsSome(dir, known))) return found.id
  if (known.id === undefined && other === undefined && known.payloads.length === 0) return found.id
  const isPool =
    other === undefined ? `has the pool id ${found.id}` : `is the pool "${other.name}" (${found.id})`
  const unknown = known.payloads.length > 0 ? "whose snapshots are not there" : "which has no directory yet"
  const meant = known.id === undefined ? unknown : `which has the id ${known.id}`
  throw unavailable(
    `STORAGE_DIR ${dir} ${isPool}; STORAGE_POOL means "${known.name}", ${meant}`,
    other === undefined
      ? "Point STORAGE_DIR at that pool's directory, or set STORAGE_POOL to another name."
      : `Set STORAGE_POOL=${other.name}, or point STORAGE_DIR at the directory of "${known.name}".`,
  )
}

/**
 * A directory without `pool.json` is taken in when it is new, or when an older version is known to have kept
 * this pool there.
 */
async function assertAdoptable(dir: string, known: KnownPool): Promise<void> {
  const owner = await ownerOf(dir)
  if (owner !== undefined && owner !== known.installation) throw ofOthers(dir, owner, known.installation)
  if (known.payloads.length > 0) {
    if (owner !== undefined && (await holdsSome(dir, known))) return
    throw unavailable(
      `STORAGE_DIR ${dir} holds none of ${counted(known.payloads.length, "snapshot")} of pool "${known.name}" that it was searched for`,
      adoptRemedy,
    )
  }
  const contents = await namesIn(join(dir, "snapshots"))
  if (owner !== undefined || (contents.length === 0 && !known.deleting)) return
  if (contents.length === 0)
    throw unavailable(
      `STORAGE_DIR ${dir} is empty, and files of deleted snapshots of pool "${known.name}" are still to be removed`,
      adoptRemedy,
    )
  throw unavailable(
    `STORAGE_DIR ${dir} says nothing of its owner but holds snapshots: ${contents.slice(0, 3).join(", ")}`,
    `If they are of this installation, write {"id":"${known.installation}"} into ${join(dir, "cluster.json")}.`,
  )
}

const adoptRemedy =
  "Mount the pool's disk there. If this is a directory of its own, set STORAGE_POOL to another name. If the snapshots are lost: `stillframe storage init`."

/** The installation that `cluster.json` names, where an older version or a host has left one. */
async function ownerOf(dir: string): Promise<string | undefined> {
  return (await readIdFile(join(dir, "cluster.json"), clusterFileSchema))?.id
}

/** Throws `storage_unavailable` for the directory of another installation, or of another pool of ours. */
export async function assertMayBecome(dir: string, known: KnownPool): Promise<void> {
  const found = await readPoolFile(dir)
  const owner = found?.installation ?? (await ownerOf(dir))
  if (owner !== undefined && owner !== known.installation) throw ofOthers(dir, owner, known.installation)
  const other = known.pools.find(({ id, name }) => id === found?.id && name !== known.name)
  if (other === undefined) return
  throw unavailable(
    `STORAGE_DIR ${dir} is the pool "${other.name}"`,
    `Set STORAGE_POOL=${other.name}, or STORAGE_DIR to a directory of its own.`,
  )
}

/** The ids of the snapshots whose payloads are not in `dir`. */
export async function missingPayloads(dir: string, { payloads }: KnownPool): Promise<string[]> {
  const missing: string[] = []
  for (const { snapshotId, payload } of payloads)
    if (!(await exists(payloadDir(dir, snapshotId, payload)))) missing.push(snapshotId)
  return missing
}

async function holdsSome(dir: string, { payloads }: KnownPool): Promise<boolean> {
  for (const { snapshotId, payload } of payloads)
    if (await exists(payloadDir(dir, snapshotId, payload))) return true
  return false
}

function absent(dir: string, { name, id }: KnownPool): StillframeError {
  return unavailable(
    `STORAGE_DIR ${dir} has no pool.json, and the pool "${name}" is the directory with the id ${id}`,
    adoptRemedy,
  )
}

function ofOthers(dir: string, owner: string | undefined, installation: string): StillframeError {
  return unavailable(
    `STORAGE_DIR ${dir} belongs to the installation ${owner}, the database to ${installation}`,
    "Point STORAGE_DIR and DATABASE_URL at the same one.",
  )
}
