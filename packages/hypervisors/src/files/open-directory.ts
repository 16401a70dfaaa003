import { closeSync, openSync } from "node:fs"
import { StillframeError } from "@stillframe/domain/errors"

/**
 * A short path of a directory, valid until `close`: a unix socket's address holds 107 bytes, a directory's
 * path may be longer. Throws `hypervisor_gone` when the directory is not there.
 */
export function openDirectory(directory: string): { path: string; close: () => void } {
  let fd: number
  try {
    fd = openSync(directory, "r")
  } catch (error) {
    throw new StillframeError(
      "hypervisor_gone",
      "the VM's directory cannot be opened; its VM may have been deleted meanwhile",
      { cause: error, said: (error as Error).message },
    )
  }
  let open = true
  return {
    path: `/proc/self/fd/${fd}`,
    // Once: the number may be another file's by the second time.
    close() {
      if (open) closeSync(fd)
      open = false
    },
  }
}
