import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { readRegular } from "@stillframe/storage/open-regular"
import { fileSize } from "../files/file-size.ts"
import { jsonBytesMax, savedNames } from "./files.ts"

interface SavedConfig {
  memory?: { size?: number; zones?: { size?: number; file?: string | null }[] | null }
}

interface SavedState {
  snapshots?: Record<string, { snapshot_data?: { state?: string } | null } | undefined>
}

/**
 * Makes sure that each file of a save is whole: this VMM reports success also where a full disk cut one of
 * them short. Throws `hypervisor_failed` naming the file.
 */
export async function assertWhole(dir: string): Promise<void> {
  const config = (await parsed(dir, savedNames.config)) as SavedConfig
  const state = (await parsed(dir, savedNames.state)) as SavedState
  const bytes = savedBytes(state) ?? configuredBytes(config)
  const found = await fileSize(join(dir, savedNames.memory))
  // Memory that lives in files of its own is not saved, and where all of it does there is no such file.
  if (found === undefined && (bytes === 0 || allInFiles(config))) return
  if (found !== bytes)
    throw cutShort(
      savedNames.memory,
      `has ${found === undefined ? "no bytes" : counted(found, "byte")} where its VM has ${bytes} of memory`,
    )
}

async function parsed(dir: string, name: string): Promise<object> {
  const text = await readRegular(join(dir, name), jsonBytesMax).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") throw cutShort(name, "was not written")
    throw error
  })
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === "object" && value !== null) return value
  } catch {
    // Told below, as any other text that is no object.
  }
  throw cutShort(name, "is cut short")
}

/**
 * The ranges of memory that were saved, as the memory manager wrote them: its state is text within the text.
 */
function savedBytes({ snapshots }: SavedState): number | undefined {
  const text = snapshots?.["memory-manager"]?.snapshot_data?.state
  if (text === undefined) return undefined
  const { memory_ranges: ranges } = JSON.parse(text) as { memory_ranges?: { data?: { length: number }[] } }
  return ranges?.data?.reduce((sum, { length }) => sum + length, 0)
}

function configuredBytes({ memory }: SavedConfig): number {
  return (memory?.zones ?? []).reduce((sum, { size = 0 }) => sum + size, memory?.size ?? 0)
}

function allInFiles({ memory }: SavedConfig): boolean {
  const zones = memory?.zones ?? []
  return memory?.size === 0 && zones.length > 0 && zones.every(({ file }) => typeof file === "string")
}

const cutShort = (name: string, what: string): StillframeError =>
  new StillframeError(
    "hypervisor_failed",
    `cloud-hypervisor saved incomplete files: ${name} ${what}. Check that the disk has space and save the VM again`,
  )
