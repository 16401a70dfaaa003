import { chown, mkdir, rm, stat, statfs } from "node:fs/promises"
import { basename, join, relative } from "node:path"
import { savedNames } from "./files.ts"

/** Where Firecracker writes a save. */
export interface SavePlace {
  readonly path: string
  /** How Firecracker, whose working directory is the VM's, is to call it. */
  readonly name: string
  /** Whether the files are to be brought elsewhere. */
  readonly staged: boolean
  /** Removes what was written. */
  remove(): Promise<void>
}

const mib = 1024 ** 2
/** For the state file. */
const slackBytes = 16 * mib

/**
 * `dir` itself; but a directory of the same name in `staging` where that has the room, because Firecracker syncs both files
 * before it answers; and one in the VM's own directory where it runs as a user who can't walk to `dir`.
 */
export async function savePlace(options: {
  vmDir: string
  dir: string
  staging?: string | undefined
  memoryMib: number
}): Promise<SavePlace> {
  const { vmDir, dir, staging, memoryMib } = options
  const { uid, gid } = await stat(vmDir)
  const foreign = uid !== process.getuid?.()
  const staged = staging !== undefined && (await hasRoom(staging, memoryMib))
  if (!staged && !foreign) return { path: dir, name: dir, staged: false, remove: () => removeFiles(dir) }
  const path = staged ? inStaging(staging, dir) : inVmDir(vmDir, dir)
  const remove = async (): Promise<void> => await rm(path, { recursive: true, force: true })
  await remove()
  await mkdir(path, { mode: 0o700 })
  if (foreign) await chown(path, uid, gid)
  return { path, name: staged ? path : relative(vmDir, path), staged: true, remove }
}

/** Removes what a save into `dir` left where it is staged, when its captor has died. Firecracker may still be writing there. */
export async function removeStaged(options: {
  vmDir: string
  dir: string
  staging?: string | undefined
}): Promise<void> {
  const { vmDir, dir, staging } = options
  const places = [inVmDir(vmDir, dir), ...(staging === undefined ? [] : [inStaging(staging, dir)])]
  for (const place of places) await rm(place, { recursive: true, force: true })
}

const inStaging = (staging: string, dir: string): string => join(staging, basename(dir))
const inVmDir = (vmDir: string, dir: string): string => join(vmDir, `saving-${basename(dir)}`)

async function hasRoom(staging: string, memoryMib: number): Promise<boolean> {
  const { bavail, bsize } = await statfs(staging)
  return bavail * bsize >= memoryMib * mib + slackBytes
}

async function removeFiles(dir: string): Promise<void> {
  for (const name of Object.values(savedNames)) await rm(join(dir, name), { force: true })
}
