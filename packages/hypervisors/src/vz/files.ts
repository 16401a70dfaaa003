import { bootFiles } from "../boot-names.ts"

/** Names in an instance's directory, which is the shim's working directory. */
export const vzFiles = {
  control: "vz.sock",
  /** The shim insists on one; nobody connects to it. */
  vsock: "vsock.sock",
  serial: "serial.log",
  log: "vz-shim.log",
  ...bootFiles,
  machine: "machine.json",
} as const

/** Names in a snapshot: the framework's own file, and what must be told again for it to be loaded. */
export const savedFiles = {
  state: "machine-state.vzm",
  machine: vzFiles.machine,
} as const
