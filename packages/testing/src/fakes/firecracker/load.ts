import { fstatSync, openSync } from "node:fs"
import { fault } from "./faults.ts"
import { chunkBytes } from "./guest.ts"
import type { Fields } from "./requests.ts"
import { decodeState, type SavedState } from "./state-file.ts"

/** What a load is asked for. */
export interface Load {
  snapshot_path: string
  mem_backend?: { backend_path: string }
  mem_file_path?: string
  resume_vm?: boolean
  network_overrides?: object[]
  vsock_override?: object
}

const noMemory = "Failed to load guest memory: Error creating guest memory from file: "
const noFile = "No such file or directory (os error 2)"

/**
 * State first, then memory, and drives at last. The file behind `memory` is mapped. Throws with Firecracker's
 * words.
 */
export function readSaved(load: Load, minor: number): { saved: SavedState; memory: number } {
  const saved = readState(load, minor)
  const memory = openMemory(load, saved.machine.mem_size_mib * chunkBytes, minor)
  for (const drive of saved.drives) openDrive(drive, restoringDrive)
  return { saved, memory }
}

/** Kept open for as long as the process lives. Throws with `failed` and what the system said. */
export function openDrive({ path_on_host: path, is_read_only: readonly }: Fields, failed: string): void {
  try {
    openSync(String(path), readonly === true ? "r" : "r+")
  } catch (error) {
    const isFolder = (error as NodeJS.ErrnoException).code === "EISDIR"
    const why = isFolder ? "Is a directory (os error 21)" : noFile
    throw new Error(
      `${failed}Virtio backend error: Error manipulating the backing file: ${why} ${String(path)}`,
      {
        cause: error,
      },
    )
  }
}

const restoringDrive =
  "Failed to build microVM from snapshot: Failed to restore devices: Error restoring MMIO devices: Block: "

/** The stand-in has neither network nor vsock that a snapshot could hold. */
function readState(load: Load, minor: number): SavedState {
  try {
    const saved = decodeState(load.snapshot_path, minor)
    if ((load.network_overrides ?? []).length > 0) throw new Error("Unknown Network Device.")
    if (load.vsock_override !== undefined) throw new Error("Unknown Vsock Device.")
    return saved
  } catch (error) {
    throw new Error(`Failed to get snapshot state from file: ${(error as Error).message}`, { cause: error })
  }
}

/** A file that is too short is refused; one that is longer is not. */
function openMemory({ mem_backend, mem_file_path }: Load, bytes: number, minor: number): number {
  let fd: number
  try {
    fd = openSync(mem_backend?.backend_path ?? mem_file_path ?? "", "r")
  } catch (error) {
    throw new Error(`${noMemory}Failed to load guest memory: ${noFile}`, { cause: error })
  }
  const unmapped = `${noMemory}Failed to restore guest memory: `
  if (fstatSync(fd).size < bytes)
    throw new Error(
      `${unmapped}${
        minor < 14
          ? "Cannot create mmap region: The specified file offset and length is greater then file length"
          : "Total sum of memory regions exceeds largest possible file offset"
      }`,
    )
  if (fault("load") === "enomem")
    throw new Error(`${unmapped}Cannot create mmap region: Cannot allocate memory (os error 12)`)
  return fd
}
