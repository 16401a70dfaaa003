import { inTransaction, type OwnedDatabase } from "@stillframe/db/client"
import { liveCompressionWorkers } from "@stillframe/db/hosts/compression-workers"
import { knownHost, liveHosts, moveHost } from "@stillframe/db/hosts/hosts"
import { poolRegister } from "@stillframe/db/hosts/pools"
import { lockSnapshot } from "@stillframe/db/snapshots/snapshots"
import { requestVerification } from "@stillframe/db/snapshots/verifications"
import { StillframeError } from "@stillframe/domain/errors"
import { assertMayBecome, makePool, missingPayloads } from "@stillframe/storage/places/claim-pool"
import { assertOwn, readHostId, takeIn } from "@stillframe/storage/places/home"
import { readPoolFile } from "@stillframe/storage/places/pool-file"

interface Asked {
  readonly dir: string
  /** The name of the pool, or of the host. */
  readonly name: string
  readonly replaceLost: boolean
}

/**
 * Makes `dir` the pool of that name; resolves with what was done, for people. Throws `conflict` for what
 * would lose snapshots unasked.
 */
export async function initPool(db: OwnedDatabase, { dir, name, replaceLost }: Asked): Promise<string> {
  const [hosts, workers] = await Promise.all([liveHosts(db), liveCompressionWorkers(db)])
  assertStopped([...hosts, ...workers].filter(({ pool }) => pool === name).map((worker) => worker.name))
  let lost: readonly string[] = []
  let before: string | undefined
  const id = await poolRegister(db, { pool: name, host: "" }).settle(async (known) => {
    before = known.id
    await assertMayBecome(dir, known)
    const found = await readPoolFile(dir)
    if (found !== undefined && found.id === known.id) return { id: found.id, taken: [] }
    lost = await missingPayloads(dir, known)
    if (lost.length > 0 && !replaceLost) throw wouldLose(dir, name, lost.length)
    return { id: found?.id ?? (await makePool(dir, known.installation)), taken: [] }
  })
  if (id === before) return `${dir} is the pool "${name}" already. Nothing was changed.`
  for (const snapshotId of lost) await verify(db, snapshotId)
  const words = `${dir} is the pool "${name}" from now on, with the id ${id}.`
  if (lost.length === 0) return words
  return `${words} Snapshots that are not in it: ${lost.length}. The next compression-worker marks them as corrupted. Delete them, or bring their files back and verify them.`
}

/** Makes `dir` the `DATA_DIR` of the host of that name, likewise. */
export async function initHome(db: OwnedDatabase, { dir, name, replaceLost }: Asked): Promise<string> {
  assertStopped((await liveHosts(db)).filter((host) => host.name === name).map((host) => host.name))
  const known = await knownHost(db, name)
  await assertOwn(dir, known.installation)
  if (known.hostId !== undefined && (await readHostId(dir)) === known.hostId)
    return `${dir} is the DATA_DIR of host "${name}" already. Nothing was changed.`
  if (known.instances > 0 && !replaceLost)
    throw new StillframeError(
      "conflict",
      `the files of instances of host "${name}" (${known.instances}) lie in another DATA_DIR. Mount its disk. If they are lost for good, --replace-lost makes ${dir} its DATA_DIR: the instances are then Stopped and have no disks until one of their snapshots is restored`,
    )
  await moveHost(db, name, await takeIn(dir, known.installation))
  return `${dir} is the DATA_DIR of host "${name}" from now on.`
}

/** They hold on to the directory that they started with. */
function assertStopped(names: readonly string[]): void {
  if (names.length === 0) return
  throw new StillframeError(
    "conflict",
    `workers are up on ${[...new Set(names)].join(", ")}. Stop them, wait 15 s and try again`,
  )
}

function wouldLose(dir: string, name: string, lost: number): StillframeError {
  return new StillframeError(
    "conflict",
    `ready snapshots of pool "${name}" that are not in ${dir}: ${lost}. Mount the disk that has them. If they are lost for good, --replace-lost makes ${dir} the pool: these snapshots are then marked as corrupted, since their files are missing`,
  )
}

async function verify(db: OwnedDatabase, snapshotId: string): Promise<void> {
  await inTransaction(db, async (tx) => {
    const snapshot = await lockSnapshot(tx, snapshotId)
    if (snapshot !== undefined) await requestVerification(tx, snapshot)
  })
}
