import type { GuestConfig } from "./launch-config.ts"

/** Names in every VM's directory. */
export const bootFiles = { kernel: "kernel", initrd: "initrd" } as const

/** The files that a VM boots from, by their names in its directory. */
export function bootNames(config: GuestConfig): string[] {
  return [
    ...(config.kernel === undefined ? [] : [bootFiles.kernel]),
    ...(config.initrd === undefined ? [] : [bootFiles.initrd]),
  ]
}
