import { rm } from "node:fs/promises"
import { cloneFile, type Clone } from "../files/clone-file.ts"
import { sealCopy } from "../files/seal-copy.ts"
import type { DiskFreeze } from "./disk-freeze.ts"
import type { Disk } from "./disks.ts"

/**
 * Keeps disks by sharing their blocks with new files, inside the pause: measured 0.6 ms for 60 MiB on XFS,
 * where a `cp` process takes 6 ms. Only for clones without an obstacle (`cloneObstacle`).
 */
export function reflinkFreeze(clones: readonly Clone[], frozen: Disk[]): DiskFreeze {
  return {
    frozen,
    active: clones.map(({ from }) => from),
    take: async () => {
      for (const clone of clones) await cloneFile(clone)
    },
    finish: async () => {
      for (const { to } of clones) await sealCopy(to)
      return 0
    },
    discard: async () => {
      for (const { to } of clones) await rm(to, { force: true })
    },
  }
}
