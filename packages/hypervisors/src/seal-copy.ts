import { chmod } from "node:fs/promises"

/** Nobody writes to a copy, and the user that runs a fork reads it without owning it. Its directory keeps everybody else out. */
export async function sealCopy(path: string): Promise<void> {
  await chmod(path, 0o444)
}
