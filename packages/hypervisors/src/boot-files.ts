import { resolveHostPath, type HostPathRules } from "./host-paths.ts"
import type { GuestConfig } from "./launch-config.ts"
import { takeIn } from "./qemu/layers.ts"

const names = { kernel: "kernel", initrd: "initrd" } as const

/** What a VM boots from, by its name in the VM's directory. */
export function bootNames(config: GuestConfig): string[] {
  return [
    ...(config.kernel === undefined ? [] : [names.kernel]),
    ...(config.initrd === undefined ? [] : [names.initrd]),
  ]
}

/** Brings kernel and initial RAM disk into a new VM's directory. Throws `invalid_request` for a path that is not allowed, before. */
export async function takeInBootFiles(config: GuestConfig, dir: string, rules: HostPathRules): Promise<void> {
  const kernel = config.kernel && (await resolveHostPath(config.kernel, rules))
  const initrd = config.initrd && (await resolveHostPath(config.initrd, rules))
  if (kernel !== undefined) await takeIn(kernel, dir, names.kernel)
  if (initrd !== undefined) await takeIn(initrd, dir, names.initrd)
}
