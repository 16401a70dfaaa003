import { access, constants } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { exists } from "./exists.ts"
import { reasonOfRefusal } from "./own-directory.ts"
import { readPoolFile, type PoolFile } from "./pool-file.ts"
import { unavailable } from "./unavailable.ts"

/** A directory that may go away, come back, or turn out to be another one than the database means. */
export interface Place {
  readonly dir: string
  /** Throws `storage_unavailable` where the directory is not there now or is another one. */
  identify(): Promise<void>
  /** Throws as `identify` does, also where the directory cannot be written. */
  check(): Promise<void>
  /** Does what looks at the directory. A failure counts only if the directory is there after it: else it is `storage_unavailable`. */
  during<T>(work: () => Promise<T>): Promise<T>
}

/** `identify` looks anew each time. */
export function placeAt(dir: string, identify: () => Promise<void>): Place {
  return {
    dir,
    identify,
    async check() {
      await identify()
      await access(dir, constants.W_OK).catch((error: NodeJS.ErrnoException) => {
        const why = `${dir} can't be written: ${reasonOfRefusal(error)}`
        throw new StillframeError("storage_unavailable", why, { cause: error })
      })
    },
    async during(work) {
      await identify()
      try {
        return await work()
      } catch (error) {
        await identify().catch((gone: unknown) => {
          const { code, message } = gone as StillframeError
          throw new StillframeError(code, message, { cause: error })
        })
        throw error
      }
    },
  }
}

/** The directory of a pool that was claimed. */
export function poolPlace(dir: string, { id, installation }: PoolFile): Place {
  return placeAt(dir, async () => {
    const found = await readPoolFile(dir)
    if (found === undefined)
      throw unavailable(`the pool ${id} is not at ${dir}: its pool.json is missing`, "Mount its disk there.")
    if (found.id !== id || found.installation !== installation)
      throw unavailable(`${dir} is the pool ${found.id} now, not ${id}`, "Mount the right disk there.")
    if (!(await exists(join(dir, "snapshots"))))
      throw unavailable(
        `the pool ${id} at ${dir} has no snapshots directory`,
        "Bring it back, or make it if it was lost with all snapshots.",
      )
  })
}
