import { constants } from "node:fs"
import { chmod, lchown, lstat, open, readdir, rename, rm } from "node:fs/promises"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"
import { bootNames } from "./boot-names.ts"
import type { Disk } from "./disks.ts"
import type { GuestConfig } from "./launch-config.ts"

/** The unprivileged user that a VM's process runs as where this process is root. */
export interface VmUser {
  readonly uid: number
  readonly gid: number
}

const ownerAndGroupRead = 0o440
const ownerAndGroupList = 0o750
const readableByAll = 0o004

/**
 * Makes a VM's directory, and the disks that it writes, those of the user that it runs as; what it boots from it can read
 * and no more. Nobody else walks there: the directories above are ours alone.
 */
export async function giveFiles(
  { dir, config, disks }: { dir: string; config: GuestConfig; disks: readonly Disk[] },
  diskFile: (disk: Disk) => string,
  user: VmUser,
): Promise<void> {
  await lchown(dir, user.uid, user.gid)
  for (const disk of disks) {
    const path = join(dir, diskFile(disk))
    // A file with a second name is someone else's too.
    if (!disk.readonly && (await lstat(path)).nlink === 1) await lchown(path, user.uid, user.gid)
  }
  for (const name of bootNames(config)) await letBoot(join(dir, name), user)
}

/** A file that he may not read may be the caller's own by a second name, whose rights are not ours to give: he gets a copy. */
async function letBoot(path: string, user: VmUser): Promise<void> {
  const { mode, uid, gid } = await lstat(path)
  const readable = (mode & readableByAll) !== 0
  if (readable || (uid === 0 && gid === user.gid && (mode & ownerAndGroupRead) === ownerAndGroupRead)) return
  const copy = `${path}.copy`
  // A try before this one may have been killed in the middle.
  await rm(copy, { force: true })
  const from = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  const to = await open(copy, "wx", ownerAndGroupRead).catch(async (error: unknown) => {
    await from.close()
    throw error
  })
  await to.chown(0, user.gid)
  await to.chmod(ownerAndGroupRead)
  await pipeline(from.createReadStream(), to.createWriteStream())
  await rename(copy, path)
}

/** Lets a user read what was saved, and nothing more: the files may be a snapshot's, and mapped by other VMs. */
export async function letRead(dir: string, user: VmUser): Promise<void> {
  await lchown(dir, 0, user.gid)
  await chmod(dir, ownerAndGroupList)
  for (const name of await readdir(dir)) await letReadFile(join(dir, name), user)
}

async function letReadFile(path: string, { gid }: VmUser): Promise<void> {
  await lchown(path, 0, gid)
  await chmod(path, ownerAndGroupRead)
}
