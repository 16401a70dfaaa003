import { chmod, chown, lstat } from "node:fs/promises"
import { join } from "node:path"
import { savedNames } from "./files.ts"

type User = { uid: number; gid: number }

/** Gives an unprivileged user what its VM must write: the directory, and these files in it. */
export async function giveToWrite(dir: string, names: readonly string[], { uid, gid }: User): Promise<void> {
  await chown(dir, uid, gid)
  for (const name of names) await chown(join(dir, name), uid, gid)
}

/** Lets it read a snapshot's files, which it must not be able to change: they may be other VMs' too, and the snapshot's. */
export async function giveToRead(saved: string, { gid }: User): Promise<void> {
  await chown(saved, (await lstat(saved)).uid, gid)
  await chmod(saved, 0o750)
  for (const name of Object.values(savedNames)) {
    await chown(join(saved, name), 0, gid)
    await chmod(join(saved, name), 0o440)
  }
}
