import { mkdir, rename, rm } from "node:fs/promises"
import { basename, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { Capture, CaptureRequest } from "../capture.ts"
import type { Disk } from "../disks/disks.ts"
import { freezeRawDisks } from "../disks/raw-disks.ts"
import type { GuestConfig } from "../launch-config.ts"
import { bringIn } from "./bring-in.ts"
import { captureVmm, unlessSilent } from "./capture.ts"
import { savePlace } from "./save-place.ts"
import type { SavedFile } from "./saved-files.ts"
import type { VmControl } from "./vm-control.ts"
import type { Vmm } from "./vmm.ts"

export interface PayloadCapture {
  readonly vmm: Vmm
  readonly vm: { readonly dir: string; readonly config: GuestConfig; readonly disks: readonly Disk[] }
  /** A payload's directory, and what the memory is called in there. */
  readonly into: { readonly dir: string; readonly memoryName: string }
  readonly request: CaptureRequest
  /** A directory on a tmpfs to save into first. One without room is passed over. */
  readonly staging?: string | undefined
}

/**
 * The name of the directory that the VMM saves into under names of its own, before the files get those of the
 * payload.
 */
export function savingName(payload: string): string {
  return `saving-${basename(payload)}`
}

/** Captures a VM into a payload's directory. */
export async function captureIntoPayload(capture: PayloadCapture): Promise<Capture> {
  const { vmm, vm } = capture
  const hypervisorVersion = await unlessSilent(async () => vmm.runningVersion?.(vm.dir, vm.config))
  return { ...(await captureStaged(capture)), ...(hypervisorVersion !== undefined && { hypervisorVersion }) }
}

async function captureStaged(capture: PayloadCapture): Promise<Capture> {
  const attempt = { full: false }
  try {
    return await captureOnce(capture, attempt)
  } catch (error) {
    if (!attempt.full || capture.request.signal.aborted) throw error
    // The VM ran again in between; what filled the tmpfs meanwhile is no reason to have no snapshot.
    return captureOnce({ ...capture, staging: undefined }, attempt)
  }
}

async function captureOnce(
  { vmm, vm, into, request, staging }: PayloadCapture,
  attempt: { full: boolean },
): Promise<Capture> {
  const { dir, config, disks } = vm
  const { memoryMib } = config
  const saving = join(into.dir, savingName(into.dir))
  const place = await savePlace({ vmDir: dir, dir: saving, staging, memoryMib })
  const control = vmm.control(dir, config)
  const kept: SavedFile[] = []
  const keep = async (files: readonly SavedFile[]): Promise<void> => {
    if (place.path !== saving) await mkdir(saving, { mode: 0o700 })
    for (const { name } of files) await bringIn(join(place.inside, name), join(saving, name))
    // Not before: nobody but us can change them any more.
    await control.assertWhole(saving)
    for (const { name, role } of files) {
      const file = { name: role === "memory" ? into.memoryName : name, role }
      kept.push(file)
      await rename(join(saving, name), join(into.dir, file.name))
    }
  }
  try {
    const captured = await captureVmm({
      ...request,
      control: place.staged ? notingFull(control, attempt) : control,
      freeze: await freezeRawDisks(disks, { dir, payload: into.dir, signal: request.signal }),
      dir: place.path,
      memoryBytes: memoryMib * 1024 ** 2,
      keep,
    })
    return { ...captured, files: kept }
  } catch (error) {
    for (const { name } of kept) await rm(join(into.dir, name), { force: true })
    throw error
  } finally {
    await place.remove()
    await rm(saving, { recursive: true, force: true })
  }
}

function notingFull(control: VmControl, attempt: { full: boolean }): VmControl {
  return {
    ...control,
    async save(dir, options) {
      try {
        return await control.save(dir, options)
      } catch (error) {
        attempt.full = error instanceof StillframeError && error.code === "insufficient_storage"
        throw error
      }
    },
  }
}
