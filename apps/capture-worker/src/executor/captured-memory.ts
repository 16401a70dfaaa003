import { join } from "node:path"
import { decompressFile, decompressFrames } from "@stillframe/codec/decompress"
import { StillframeError } from "@stillframe/domain/errors"
import { linkFile } from "@stillframe/hypervisors/files/link-files"
import type { CapturedMemory } from "@stillframe/hypervisors/hypervisor"
import { rawMemoryName } from "@stillframe/storage/layout"
import { memoryEntry, type Manifest } from "@stillframe/storage/manifest"
import { openRegular } from "@stillframe/storage/open-regular"

/** Whole streams of a raw memory file; small pieces cost more calls than they save memory. */
const readBytes = 1024 ** 2
const threads = 2

/** The file and form of a payload's memory. */
export interface MemoryPlace {
  readonly payloadDir: string
  /** The raw one or one of frames. Absent where the memory is in the state. */
  readonly memoryFile?: string
}

/** Throws `corrupted` for a payload of kind Standby that has no memory where it should. */
export function capturedMemory(
  { payloadDir: dir, memoryFile }: MemoryPlace,
  manifest: Manifest,
  signal: AbortSignal,
): CapturedMemory {
  const names = manifest.files.filter(({ role }) => role === "state").map(({ name }) => name)
  const state = { dir, names }
  if (memoryEntry(manifest) === undefined) return { ...inState, state }
  const path = join(dir, memoryFile ?? "")
  const raw = memoryFile === rawMemoryName
  if (!raw && !/\.(zst|lz4)$/.test(path))
    throw new StillframeError("corrupted", `${path} is not a memory file of Stillframe`)
  return {
    stream: () =>
      // Straight from the frames: nothing is unpacked to disk.
      raw ? piecesOf(path, signal) : decompressFrames({ path, threads, signal }),
    async place(destination) {
      if (raw) await linkFile(path, destination, signal)
      else await decompressFile({ source: path, destination, threads, signal, sync: false })
    },
    state,
  }
}

async function* piecesOf(path: string, signal: AbortSignal): AsyncGenerator<Buffer> {
  await using file = await openRegular(path)
  yield* file.createReadStream({
    highWaterMark: readBytes,
    signal,
    autoClose: false,
  }) as AsyncIterable<Buffer>
}

/** Memory that only its hypervisor finds, in a file of its own. */
const inState: Pick<CapturedMemory, "stream" | "place"> = {
  stream() {
    throw noFile()
  },
  async place() {
    throw noFile()
  },
}

function noFile(): StillframeError {
  return new StillframeError("internal_error", "the snapshot's memory is in its state and has no file")
}
