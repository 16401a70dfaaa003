import { constants } from "node:fs/promises"
import { sep } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { assertAccess, makeOwnDirectory } from "../own-directory.ts"
import { readPoolFile } from "./pool-file.ts"

/**
 * Makes the `DATA_DIR` of a process that starts. Throws `invalid_request` where that can't be used, which
 * then lists a `STORAGE_DIR` that can't be used either. One that is the only mistake is told by its claim,
 * once VMs that were left paused in `DATA_DIR` go on.
 */
export async function openDataDir({
  dataDir,
  storageDir,
}: {
  readonly dataDir: string
  readonly storageDir: string
}): Promise<void> {
  const refusal = await refusalOf(makeOwnDirectory("DATA_DIR", dataDir))
  if (refusal === undefined) return
  // A directory inside one that cannot be used is not a second mistake.
  if (storageDir.startsWith(`${dataDir}${sep}`)) throw refusal
  const other = await refusalOf(assertStorage(storageDir))
  if (other === undefined) throw refusal
  const lines = [refusal, other].map(({ message }) => `  ${message}`)
  const message = `directories that can't be used:\n${lines.join("\n")}`
  throw new StillframeError("invalid_request", message, { cause: refusal })
}

/** A pool that is mounted read-only can be read. */
async function assertStorage(dir: string): Promise<void> {
  await assertAccess("STORAGE_DIR", dir, constants.X_OK)
  if ((await readPoolFile(dir)) === undefined) await assertAccess("STORAGE_DIR", dir, constants.W_OK)
}

async function refusalOf(check: Promise<void>): Promise<StillframeError | undefined> {
  return check.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof StillframeError) return error
      throw error
    },
  )
}
