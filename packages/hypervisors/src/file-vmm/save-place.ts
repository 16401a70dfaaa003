import { constants } from "node:fs"
import { mkdir, open, rm, rmdir, stat, statfs, unlink } from "node:fs/promises"
import { basename, join } from "node:path"
import { namesOf } from "../files/names-of.ts"

/** The place of a VMM's save, which is chosen and made before the pause. */
export interface SavePlace {
  /** Absolute, an empty directory that the VM's process can write to. */
  readonly path: string
  /** The same by a name that its owner can't give to another directory; valid until it is removed. */
  readonly inside: string
  /** True if it lies on the tmpfs, where other saves may take the room first. */
  readonly staged: boolean
  /** Removes it with all that is in it. */
  remove(): Promise<void>
}

export interface SaveSpot {
  /** The VM's process runs as the owner of this directory. */
  readonly vmDir: string
  /** Absolute; does not exist yet. Its name, `saving-<token>`, is no other save's. */
  readonly dir: string
  /** A directory on a tmpfs. */
  readonly staging?: string | undefined
  readonly memoryMib: number
}

const mib = 1024 ** 2
/** Errors of systems for unlinking a directory, or one with entries. */
const isDirectory: ReadonlySet<string | undefined> = new Set(["EISDIR", "EPERM", "ENOTEMPTY"])
const directoryItself = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW
const bytesPerBlock = 512
/** For the state file, beside each memory. */
const slackBytes = 16 * mib

/**
 * A directory in `staging` where that has the room: the guest is then not kept waiting for a disk. Else `dir`
 * itself; but one in the VM's own directory where it runs as a user who can't walk to `dir`.
 */
export async function savePlace(spot: SaveSpot): Promise<SavePlace> {
  const { vmDir, dir, staging } = spot
  const staged = staging !== undefined && (await inStaging(staging, spot))
  if (staged) return staged
  const owner = await stat(vmDir)
  const foreign = owner.uid !== process.geteuid?.()
  return makePlace(foreign ? join(vmDir, basename(dir)) : dir, { owner, staged: false })
}

/** Removes what a save named `saving-<token>` left outside of its payload when its captor died. */
export async function removeStaged(options: {
  vmDir: string
  name: string
  staging?: string | undefined
}): Promise<void> {
  const { vmDir, name, staging } = options
  await removeFlat(join(vmDir, name))
  if (staging === undefined) return
  for (const found of await namesOf(staging))
    if (found.startsWith(`${name}.`)) await removeFlat(join(staging, found))
}

/** Its name says how many MiB it may grow to, for whoever counts what is left beside it. */
async function inStaging(
  staging: string,
  { vmDir, dir, memoryMib }: SaveSpot,
): Promise<SavePlace | undefined> {
  const path = join(staging, `${basename(dir)}.${memoryMib}`)
  const place = await makePlace(path, { owner: await stat(vmDir), staged: true })
  // It is counted itself, so two that come at the same time never both take what is enough for one.
  if (await hasRoom(staging)) return place
  await place.remove()
  return undefined
}

async function makePlace(
  path: string,
  { owner, staged }: { owner: { uid: number; gid: number }; staged: boolean },
): Promise<SavePlace> {
  await removeFlat(path)
  await mkdir(path, { mode: 0o700 })
  if (owner.uid === process.geteuid?.())
    return { path, inside: path, staged, remove: () => rm(path, { recursive: true, force: true }) }
  const directory = await open(path, directoryItself)
  await directory.chown(owner.uid, owner.gid)
  return {
    path,
    inside: `/proc/self/fd/${directory.fd}`,
    staged,
    async remove() {
      await directory.close()
      await removeFlat(path)
    },
  }
}

/**
 * Removes a directory of files, whatever stands in its place. It goes no deeper, where a process that was
 * broken out of could lead it to another place: directories in there are left, and end with the VM's own.
 */
async function removeFlat(path: string): Promise<void> {
  const directory = await open(path, directoryItself).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined
    if (error.code !== "ELOOP" && error.code !== "ENOTDIR") throw error
    await unlink(path)
    return undefined
  })
  if (directory === undefined) return
  try {
    const inside = `/proc/self/fd/${directory.fd}`
    for (const name of await namesOf(inside)) await unlink(join(inside, name)).catch(unlessDirectory)
  } finally {
    await directory.close()
  }
  await rmdir(path).catch(unlessDirectory)
}

function unlessDirectory(error: NodeJS.ErrnoException): void {
  if (!isDirectory.has(error.code)) throw error
}

async function hasRoom(staging: string): Promise<boolean> {
  const names = (await namesOf(staging)).filter((name) => name.startsWith("saving-"))
  const wanted = await Promise.all(names.map(async (name) => await stillWanted(staging, name)))
  const { bavail, bsize } = await statfs(staging)
  return bavail * bsize >= wanted.reduce((sum, bytes) => sum + bytes, 0)
}

async function stillWanted(staging: string, name: string): Promise<number> {
  const promised = Number(name.slice(name.lastIndexOf(".") + 1)) * mib + slackBytes
  const dir = join(staging, name)
  const written = await Promise.all(
    (await namesOf(dir)).map(
      async (file) => (await stat(join(dir, file)).catch(() => undefined))?.blocks ?? 0,
    ),
  )
  return Math.max(0, promised - written.reduce((sum, blocks) => sum + blocks, 0) * bytesPerBlock)
}
