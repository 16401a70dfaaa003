import { readFile } from "node:fs/promises"
import { basename } from "node:path"
import { z } from "zod"
import { plainReason, reasonOf, unavailable } from "../unavailable.ts"

/**
 * A small JSON file that says whose a directory is. Undefined where there is none. Throws
 * `storage_unavailable` for one that can't be read or understood: that says nothing about the files beside
 * it.
 */
export async function readIdFile<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string
  try {
    text = await readFile(path, "utf8")
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "ENOENT") return undefined
    throw unavailable(
      `${basename(path)} cannot be read: ${plainReason(error)}`,
      code === "EACCES"
        ? "Run as the user who owns it, or change its owner."
        : "Mount the disk that holds it, or point the setting at the directory that was meant.",
      { cause: error, said: reasonOf(error) },
    )
  }
  try {
    return schema.parse(JSON.parse(text))
  } catch (error) {
    throw unavailable(`${basename(path)} is damaged`, "Restore it from a backup.", {
      cause: error,
      said: path,
    })
  }
}

/** `cluster.json`: the installation that a directory belongs to. */
export const clusterFileSchema = z.object({ id: z.string() })
