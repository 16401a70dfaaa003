import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { setTimeout as delay } from "node:timers/promises"
import { fault, hang } from "./faults.ts"
import { chunkBytes, type Guest } from "./guest.ts"
import { encodeState, type SavedState } from "./state-file.ts"

const slowMs = 20
const full = "No space left on device (os error 28)"

const words: Readonly<Record<string, string>> = {
  ENOENT: "No such file or directory",
  EISDIR: "Is a directory",
  EACCES: "Permission denied",
}

/**
 * State first, then memory, each synced; the memory file gets its size before its content. Throws with
 * Firecracker's words.
 */
export async function save(
  { snapshot_path, mem_file_path }: { snapshot_path: string; mem_file_path: string },
  state: SavedState,
  guest: Guest,
): Promise<void> {
  const wrong = fault("save")
  saveState(snapshot_path, state, wrong)
  await hang("save", "hang_memory")
  const bytes = state.machine.mem_size_mib * chunkBytes
  const fd = openMemory(mem_file_path, bytes)
  try {
    for (let offset = 0; offset < bytes; offset += chunkBytes) {
      if (offset >= bytes / 2) {
        if (wrong === "enospc_memory") throw noRoom()
        if (wrong === "die") process.kill(process.pid, "SIGKILL")
      }
      writeSync(fd, guest.chunk(offset), 0, chunkBytes, offset)
      if (wrong === "slow") await delay(slowMs)
    }
    fsyncSync(fd)
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === "ENOSPC" ? noRoom() : error
  } finally {
    closeSync(fd)
  }
  if (wrong === "cut_memory") truncateSync(mem_file_path, bytes / 2)
}

const noRoom = (): Error =>
  new Error(`Cannot write memory file: Cannot dump memory: Guest memory error: ${full}`)

function saveState(path: string, state: SavedState, wrong: string | undefined): void {
  const bytes = encodeState(state)
  try {
    writeFileSync(path, wrong === "cut_state" ? bytes.subarray(0, bytes.length / 2) : bytes, { flush: true })
  } catch (error) {
    throw backingFile("snapshot", error)
  }
  if (wrong === "enospc_state") throw new Error(`Cannot serialize the microVM state: IO Error: ${full}`)
}

/** A file of the guest's size is written over in place, because a VM may have it mapped. */
function openMemory(path: string, bytes: number): number {
  try {
    const fd = openSync(path, existsSync(path) ? "r+" : "w")
    if (fstatSync(fd).size !== bytes) ftruncateSync(fd, 0)
    ftruncateSync(fd, bytes)
    return fd
  } catch (error) {
    throw backingFile("memory", error)
  }
}

function backingFile(which: string, error: unknown): Error {
  const { code, errno } = error as NodeJS.ErrnoException
  const said = words[code ?? ""] ?? code
  return new Error(`Cannot perform open on the ${which} backing file: ${said} (os error ${-(errno ?? 0)})`)
}
