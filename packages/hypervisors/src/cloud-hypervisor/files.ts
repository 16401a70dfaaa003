import { bootFiles } from "../boot-names.ts"

/**
 * Names in a VM's directory, which is its process's working directory; relative, so that none depends on
 * where it lies.
 */
export const vmFiles = {
  socket: "api.sock",
  serial: "serial.log",
  log: "cloud-hypervisor.log",
  ...bootFiles,
  /** Exists only while a snapshot is loaded. */
  loading: "loading",
} as const

/** Files of `vm.snapshot`; the VMM chooses the names. */
export const savedNames = { config: "config.json", state: "state.json", memory: "memory-ranges" } as const

/** The state holds each device's, as text within text: some hundred KiB. */
export const jsonBytesMax = 64 * 1024 ** 2
