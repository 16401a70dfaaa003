import { chmod, chown, lstat } from "node:fs/promises"

/**
 * Nobody writes to a copy, and the user that runs a fork reads it without owning it. Its directory keeps
 * everybody else out. As root it becomes ours: a clone has the owner of its original, who may be a VM's user,
 * and could take the right to write back.
 */
export async function sealCopy(path: string): Promise<void> {
  if (process.getuid?.() === 0) await chown(path, 0, 0)
  await chmod(path, 0o444)
}

/** True for a file that nobody may write any more. */
export async function isSealed(path: string): Promise<boolean> {
  return ((await lstat(path)).mode & 0o222) === 0
}
