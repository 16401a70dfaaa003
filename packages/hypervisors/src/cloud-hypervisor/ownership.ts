import { chmod, chown, lchown, readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import type { Disk } from "../disks.ts"
import { diskFile } from "./vm-config.ts"

interface User {
  readonly uid: number
  readonly gid: number
}

const ownerAndGroupRead = 0o640
const ownerAndGroupList = 0o750

/** Makes the VM's directory, and the disks that it writes, those of the user that it runs as. */
export async function giveDirectory(dir: string, disks: readonly Disk[], user: User): Promise<void> {
  await chown(dir, user.uid, user.gid)
  for (const disk of disks) {
    const path = join(dir, diskFile(disk))
    // A file with a second name is someone else's too.
    if (!disk.readonly && (await stat(path)).nlink === 1) await chown(path, user.uid, user.gid)
  }
}

/** Lets a user read what was saved, and nothing more: the files may be a snapshot's. */
export async function letRead(dir: string, user: User): Promise<void> {
  await chown(dir, process.geteuid?.() ?? 0, user.gid)
  await chmod(dir, ownerAndGroupList)
  for (const name of await readdir(dir)) {
    const path = join(dir, name)
    await chown(path, (await stat(path)).uid, user.gid)
    await chmod(path, ownerAndGroupRead)
  }
}

/**
 * Lets the owner of `home`, whom the VM's process runs as, write into a directory of ours. The returned function makes it
 * and all that is in it ours again.
 */
export async function lendDirectory(dir: string, home: string): Promise<() => Promise<void>> {
  const [us, owner] = [await stat(dir), await stat(home)]
  if (process.geteuid?.() !== 0 || owner.uid === us.uid) return async () => {}
  await chown(dir, owner.uid, owner.gid)
  return async () => {
    await chown(dir, us.uid, us.gid)
    for (const name of await readdir(dir)) await lchown(join(dir, name), us.uid, us.gid)
  }
}
