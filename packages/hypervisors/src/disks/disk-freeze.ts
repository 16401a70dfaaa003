import type { Disk } from "./disks.ts"

/**
 * One way of keeping what a VM's disks hold at the moment of its capture. Only `take` is called inside the
 * pause.
 */
export interface DiskFreeze {
  /** The chains of that moment: immutable once `finish` is done. */
  frozen: Disk[]
  /** The files that the VM writes until `take`, to be flushed beforehand. */
  active: string[]
  take(): Promise<void>
  /** Work that can wait until the VM runs again. Resolves with the milliseconds of a second stop. */
  finish(): Promise<number>
  /** After a failure: takes away what was made; what the VM may be using is first led back, or stays. */
  discard(): Promise<void>
}
