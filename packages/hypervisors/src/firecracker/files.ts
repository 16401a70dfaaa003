import { bootFiles } from "../boot-names.ts"

/**
 * Names in a VM's directory, which is its process's working directory. Firecracker keeps the names of drives
 * in the state file and takes no others at a restore: because they are relative, a fork is nothing but
 * another directory.
 */
export const firecrackerFiles = {
  socket: "api.sock",
  /** Standard output, which is the guest's serial console. */
  serial: "serial.log",
  /** Standard error: why it would not start. */
  errors: "firecracker.err",
  /** Firecracker's own log. */
  log: "firecracker.log",
  ...bootFiles,
} as const

/** Names in the directory of a save. */
export const savedNames = { state: "vmstate", memory: "memory" } as const
