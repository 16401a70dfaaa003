import type { GuestConfig } from "./launch-config.ts"

/** Names in every VM's directory. */
export const bootFiles = { kernel: "kernel", initrd: "initrd" } as const

/** What a VM boots from, by its name in the VM's directory. */
export function bootNames(config: GuestConfig): string[] {
  return [
    ...(config.kernel === undefined ? [] : [bootFiles.kernel]),
    ...(config.initrd === undefined ? [] : [bootFiles.initrd]),
  ]
}
