import { readFile } from "node:fs/promises"
import { z } from "zod"
import { reasonOf, unavailable } from "./unavailable.ts"

/**
 * A small JSON file that says whose a directory is. Undefined where there is none. Throws `storage_unavailable` for one that
 * can't be read or understood: that says nothing about the files beside it.
 */
export async function readIdFile<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  let text: string
  try {
    text = await readFile(path, "utf8")
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "ENOENT") return undefined
    throw unavailable(
      `${path} can't be read: ${reasonOf(error)}`,
      code === "EACCES"
        ? "Run as the user who owns it, or change its owner."
        : "Mount the disk that holds it, or point the setting at the directory that was meant.",
      error,
    )
  }
  try {
    return schema.parse(JSON.parse(text))
  } catch (error) {
    throw unavailable(`${path} can't be understood`, "Restore it from a backup.", error)
  }
}

/** `cluster.json`: the installation that a directory belongs to. */
export const clusterFileSchema = z.object({ id: z.string() })
