import { link, mkdir, rm } from "node:fs/promises"
import { basename, join } from "node:path"
import { bringIn } from "./bring-in.ts"
import { captureVmm } from "./capture-vmm.ts"
import type { Capture, CaptureRequest } from "./capture.ts"
import type { Disk } from "./disks.ts"
import type { GuestConfig } from "./launch-config.ts"
import { freezeRawDisks } from "./raw-disks.ts"
import type { SavedFile } from "./saved-files.ts"
import type { Vmm } from "./vmm.ts"

/**
 * Captures a VM into a payload's directory. Its VMM saves into an empty one inside, under names of its own, from where the
 * files get those of the payload.
 */
export async function captureIntoPayload(
  vmm: Vmm,
  { dir, config, disks }: { dir: string; config: GuestConfig; disks: readonly Disk[] },
  into: { dir: string; memoryName: string },
  request: CaptureRequest,
): Promise<Capture> {
  // Its name is no other try's either: what a VMM stages elsewhere is named after it.
  const saving = join(into.dir, `saving-${basename(into.dir)}`)
  await mkdir(saving, { mode: 0o700 })
  try {
    const freeze = await freezeRawDisks(disks, { dir, payload: into.dir, signal: request.signal })
    const control = vmm.control(dir, config)
    const memoryBytes = config.memoryMib * 1024 ** 2
    const captured = await captureVmm({ ...request, control, freeze, dir: saving, memoryBytes })
    await bringIn(captured.files, saving)
    const files: SavedFile[] = []
    for (const { name, role } of captured.files) {
      const kept = role === "memory" ? into.memoryName : name
      await link(join(saving, name), join(into.dir, kept))
      files.push({ name: kept, role })
    }
    return { ...captured, files }
  } finally {
    await rm(saving, { recursive: true, force: true })
  }
}
