import { createReadStream } from "node:fs"
import { basename, dirname } from "node:path"
import { decompressFile, decompressFrames } from "@stillframe/codec/decompress"
import { StillframeError } from "@stillframe/domain/errors"
import type { CapturedMemory } from "@stillframe/hypervisors/hypervisor"
import { linkFile } from "@stillframe/hypervisors/link-files"
import { rawMemoryName } from "@stillframe/storage/layout"
import type { Manifest } from "@stillframe/storage/manifest"

/** Whole streams of a raw memory file; small pieces cost more calls than they save memory. */
const readBytes = 1024 ** 2
const threads = 2

/** The memory of a payload, whose file is the raw one or one of frames. */
export function capturedMemory(path: string, manifest: Manifest, signal: AbortSignal): CapturedMemory {
  const raw = basename(path) === rawMemoryName
  if (!raw && !/\.(zst|lz4)$/.test(path))
    throw new StillframeError("corrupted", `${path} is no memory file of ours`)
  return {
    stream: () =>
      // Straight from the frames: nothing is unpacked to disk.
      raw
        ? createReadStream(path, { highWaterMark: readBytes, signal })
        : decompressFrames({ path, threads, signal }),
    async place(destination) {
      if (raw) await linkFile(path, destination, signal)
      else await decompressFile({ source: path, destination, threads, signal, sync: false })
    },
    state: {
      dir: dirname(path),
      names: manifest.files.filter(({ role }) => role === "state").map(({ name }) => name),
    },
  }
}
