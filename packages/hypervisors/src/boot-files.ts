import { bootFiles } from "./boot-names.ts"
import { checkKernel, resolveHostPath, type HostPathRules } from "./host-paths.ts"
import type { GuestConfig } from "./launch-config.ts"
import { takeIn } from "./qemu/layers.ts"

/** Brings kernel and initial RAM disk into a new VM's directory. Throws `invalid_request` for a path that is not allowed and for what is not a kernel, before. */
export async function takeInBootFiles(config: GuestConfig, dir: string, rules: HostPathRules): Promise<void> {
  const [kernel, initrd] = await Promise.all(
    [config.kernel, config.initrd].map(async (path) => path && (await resolveHostPath(path, rules))),
  )
  if (kernel !== undefined) await checkKernel(kernel)
  if (kernel !== undefined) await takeIn(kernel, dir, bootFiles.kernel)
  if (initrd !== undefined) await takeIn(initrd, dir, bootFiles.initrd)
}
