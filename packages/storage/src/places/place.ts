import { access, constants } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { exists } from "../exists.ts"
import { plainReason, reasonOf, unavailable } from "../unavailable.ts"
import { readPoolFile, type PoolFile } from "./pool-file.ts"

/** A directory that may go away, come back, or turn out to be another one than the database means. */
export interface Place {
  readonly dir: string
  /** Throws `storage_unavailable` where the directory is not there now or is another one. */
  identify(): Promise<void>
  /** Throws as `identify` does, also where the directory cannot be written. */
  check(): Promise<void>
  /**
   * Runs work on the directory. If the directory is absent after a failure, the failure is
   * `storage_unavailable`.
   */
  during<T>(work: () => Promise<T>): Promise<T>
}

/**
 * `identify` looks anew each time. `setting` names the directory in messages, which callers of the API may
 * see.
 */
export function placeAt(setting: string, dir: string, identify: () => Promise<void>): Place {
  return {
    dir,
    identify,
    async check() {
      await identify()
      await access(dir, constants.W_OK).catch((error: unknown) => {
        throw unavailable(
          `${setting} of the host cannot be written: ${plainReason(error)}`,
          "Mount it so that it can be written, or give it to the user of the worker.",
          { cause: error, said: reasonOf(error) },
        )
      })
    },
    async during(work) {
      await identify()
      try {
        return await work()
      } catch (error) {
        await identify().catch((gone: unknown) => {
          const { code, message, said } = gone as StillframeError
          throw new StillframeError(code, message, { cause: error, said })
        })
        throw error
      }
    },
  }
}

/** The directory of a pool that was claimed. */
export function poolPlace(dir: string, { id, installation }: PoolFile): Place {
  return placeAt("STORAGE_DIR", dir, async () => {
    const found = await readPoolFile(dir)
    if (found === undefined)
      throw unavailable(
        `the pool ${id} is not in STORAGE_DIR of the host: its pool.json is missing`,
        "Mount its disk there.",
      )
    if (found.id !== id || found.installation !== installation)
      throw unavailable(
        `STORAGE_DIR of the host is the pool ${found.id} now, not ${id}`,
        "Mount the right disk there.",
      )
    if (!(await exists(join(dir, "snapshots"))))
      throw unavailable(
        `the pool ${id} has no snapshots directory in STORAGE_DIR of the host`,
        "Bring it back, or make it if it was lost with all snapshots.",
      )
  })
}
