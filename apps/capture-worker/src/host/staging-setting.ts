import { accessSync, constants, statfsSync, statSync } from "node:fs"
import { z } from "zod"

/** The magic number of a tmpfs on Linux. */
const tmpfsType = 0x0102_1994

/**
 * `CAPTURE_STAGING`: one that is named and can't be used is a mistake to be told at the start, not at the
 * first capture.
 */
export const stagingSetting = z
  .string()
  .superRefine((path, context) => {
    const wrong = wrongWith(path)
    if (wrong !== undefined) context.addIssue({ code: "custom", message: wrong })
  })
  .optional()

function wrongWith(path: string): string | undefined {
  if (!path.startsWith("/")) return "must be an absolute path, such as /dev/shm"
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory() !== true)
    return "must be a directory that exists; make it, or mount a tmpfs there"
  if (statfsSync(path).type !== tmpfsType)
    return "must lie on a tmpfs, or the guest would be kept waiting for a disk twice; name /dev/shm, or mount one: mount -t tmpfs tmpfs <directory>"
  try {
    accessSync(path, constants.W_OK | constants.X_OK)
    return undefined
  } catch {
    return "must be one that this process may write to; change its owner or mode"
  }
}
