import { constants } from "node:fs"
import { chmod, lchown, lstat, open, readdir, rename, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { pipeline } from "node:stream/promises"
import { bootNames } from "../boot-names.ts"
import type { Disk } from "../disks/disks.ts"
import type { GuestConfig } from "../launch-config.ts"
import type { VmUser } from "../process/vm-users.ts"

/**
 * For all, and not for the user's group: the VMs of a host share one, and a directory above keeps all others
 * out.
 */
const readOnly = 0o444
const listOnly = 0o755
const readableByAll = 0o004
/** How earlier versions sealed a layer: for the group that their VMs had. */
const readableByGroup = 0o440

/**
 * Makes a VM's directory, and the disks that it writes, those of the user that it runs as; what it boots from
 * it can read and no more. Nobody else walks there: the directories above are ours alone.
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
  for (const name of bootNames(config)) await letBoot(join(dir, name))
}

/**
 * A file that he may not read may be the caller's own by a second name, whose rights are not ours to give: he
 * gets a copy.
 */
async function letBoot(path: string): Promise<void> {
  if (((await lstat(path)).mode & readableByAll) !== 0) return
  const copy = `${path}.copy`
  // A try before this one may have been killed in the middle.
  await rm(copy, { force: true })
  const from = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  const to = await open(copy, "wx", readOnly).catch(async (error: unknown) => {
    await from.close()
    throw error
  })
  await to.chmod(readOnly)
  await pipeline(from.createReadStream(), to.createWriteStream())
  await rename(copy, path)
}

/**
 * Lets VMs read what was saved, and nothing more: the files may be a snapshot's, and loaded or mapped by
 * other VMs.
 */
export async function letRead(dir: string): Promise<void> {
  await lchown(dir, 0, 0)
  await chmod(dir, listOnly)
  for (const name of await readdir(dir)) {
    await lchown(join(dir, name), 0, 0)
    await chmod(join(dir, name), readOnly)
  }
}

/**
 * Lets any VM read a layer that an earlier version sealed for the group of all VMs. Other files stay as they
 * are.
 */
export async function letReadLayer(path: string): Promise<void> {
  const layer = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    const { uid, gid, mode } = await layer.stat()
    // A VM that was broken out of may have linked something of root's here.
    if (uid === 0 && gid !== 0 && (mode & 0o777) === readableByGroup) await layer.chmod(readOnly)
  } finally {
    await layer.close()
  }
}

/** Gives a file that we made in a VM's directory to the user that the directory belongs to. */
export async function giveToOwnerOf(dir: string, name: string): Promise<void> {
  const [{ uid, gid }, file] = await Promise.all([stat(dir), lstat(join(dir, name))])
  // That user may have given the name to another file: no link is followed.
  if (file.uid !== uid) await lchown(join(dir, name), uid, gid)
}
