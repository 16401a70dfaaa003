import { chmod, lchown, lstat, readdir } from "node:fs/promises"
import { join } from "node:path"
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
  for (const name of bootNames(config)) {
    const { mode } = await lstat(join(dir, name))
    // One that not all may read is a copy of ours: of such a file no second name is made.
    if ((mode & readableByAll) === 0) await letReadFile(join(dir, name), user)
  }
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
