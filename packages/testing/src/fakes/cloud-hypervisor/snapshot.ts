import { closeSync, ftruncateSync, openSync, statSync, writeSync } from "node:fs"
import { join } from "node:path"
import { done, type Answer } from "./answer.ts"
import type { Fault } from "./faults.ts"
import type { FakeVmm, VmConfig } from "./vmm.ts"

/**
 * Writes the three files, none of which may exist. Nothing is flushed, and what was written before a failure
 * stays. The two small ones are written by a single call whose count nobody reads, so a full disk cuts them
 * without an error.
 */
export function snapshot(vmm: FakeVmm, body: Record<string, unknown>, fault: Fault | undefined): Answer {
  const failed = ["Error from API", "The VM could not be snapshotted"]
  const { config, guest } = vmm
  if (config === undefined || guest === undefined) return vmm.refused([...failed, "VM is not running"])
  if (vmm.state !== "Paused")
    return vmm.refused([
      ...failed,
      "Cannot snapshot VM",
      "Failed to snapshot migratable component",
      "Trying to snapshot while VM is running",
    ])
  const sending = [...failed, "Cannot send VM snapshot", "Failed to send migratable component snapshot"]
  const dir = String(body["destination_url"]).replace(/^file:\/\//, "")
  if (statSync(dir, { throwIfNoEntry: false })?.isDirectory() !== true)
    return vmm.refused([...sending, `Destination is not a directory: "${dir}"`])
  const full = fault?.does === "full" ? fault.file : undefined
  try {
    writeText(join(dir, "config.json"), vmm.configText(config), full === "config.json")
    writeText(join(dir, "state.json"), JSON.stringify(stateOf(config)), full === "state.json")
    const memory = createNew(join(dir, "memory-ranges"))
    try {
      if (full === "memory-ranges") throw noSpace()
      ftruncateSync(memory, config.memory.size)
      guest.writeMemory(memory)
      if (full === "memory-ranges-silently") ftruncateSync(memory, config.memory.size / 2)
    } finally {
      closeSync(memory)
    }
  } catch (error) {
    return vmm.refused([...sending, ...wordsOf(error as NodeJS.ErrnoException)])
  }
  return done
}

function writeText(path: string, text: string, cut: boolean): void {
  const fd = createNew(path)
  writeSync(fd, cut ? text.slice(0, text.length / 2) : text)
  closeSync(fd)
}

const createNew = (path: string): number => openSync(path, "wx", 0o600)

const noSpace = (): Error => Object.assign(new Error("ENOSPC"), { code: "ENOSPC" })

function wordsOf({ code, message }: NodeJS.ErrnoException): string[] {
  if (code === "EEXIST") return ["Error creating VM config snapshot file", "File exists (os error 17)"]
  if (code !== "ENOSPC") return [message]
  return [
    "Error writing dense memory snapshot region",
    "Guest memory error: No space left on device (os error 28)",
  ]
}

/** Components keep their state as text within the text. */
function stateOf(config: VmConfig): object {
  const component = (state: object): object => ({
    snapshots: {},
    snapshot_data: { state: JSON.stringify(state) },
  })
  return {
    snapshots: {
      "cpu-manager": component({}),
      "device-manager": component({}),
      "memory-manager": component({
        memory_ranges: { data: [{ gpa: 0, length: config.memory.size }] },
        boot_ram: config.memory.size,
        current_ram: config.memory.size,
      }),
    },
    snapshot_data: { state: JSON.stringify({ clock: null }) },
  }
}
