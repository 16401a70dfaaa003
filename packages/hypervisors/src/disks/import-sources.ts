import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { openHostFileAt, pathOfDescriptor, type HostFile } from "../files/host-file.ts"
import {
  assertSameSource,
  baseName,
  factsOf,
  goneSource,
  type Disk,
  type DiskLayer,
  type DiskSource,
} from "./disks.ts"
import type { ImageStore } from "./image-store.ts"
import { importImage } from "./import-image.ts"

interface Place {
  /** The VM's directory. */
  readonly from: string
  /** The payload's. */
  readonly dir: string
  readonly store: ImageStore
  readonly signal: AbortSignal
}

/**
 * Imports the callers' files below the chains of a VM that never had images of ours: one that someone else
 * started, or that an earlier version launched. Resolves with the disks as the payload keeps them. Throws
 * `conflict` for a file that was changed since.
 */
export async function importSources(disks: readonly Disk[], place: Place): Promise<Disk[]> {
  const imported: Disk[] = []
  for (const [index, disk] of disks.entries()) {
    const { layers, sources } = disk
    // The callers' files are the end of the chain, one layer each.
    const own = layers.slice(0, layers.length - sources.length)
    const callers: DiskLayer[] = []
    for (const [depth, source] of sources.entries()) {
      const { format } = layers[own.length + depth] ?? { format: "raw" }
      const file = baseName(index, depth)
      callers.push({ file, format, sha256: await importSource(source, file, place) })
    }
    imported.push({ ...disk, layers: [...own, ...callers], sources: [] })
  }
  return imported
}

async function importSource(
  source: DiskSource,
  name: string,
  { from, dir, ...importing }: Place,
): Promise<string> {
  await using file = await openSource(source, from)
  return await importImage({ ...file, path: source.path, shown: source.path }, join(dir, name), importing)
}

/**
 * Opens a caller's file for all that is read of it. `from`: where our link to it is. Throws `conflict` for
 * one that was changed since.
 */
export async function openSource(source: DiskSource, from: string): Promise<HostFile> {
  const path = source.link === undefined ? source.path : join(from, source.link)
  const file = await openHostFileAt(path).catch((error: unknown) => {
    const cause = error instanceof Error ? (error.cause ?? error) : error
    throw (cause as NodeJS.ErrnoException).code === "ELOOP"
      ? replacedSource(source, cause)
      : goneSource(source, cause)
  })
  try {
    // The source of an attached VM names a real path: a directory above it may have been replaced by a link
    // since.
    if (source.link === undefined && (await pathOfDescriptor(file)) !== source.path)
      throw replacedSource(source)
    assertSameSource(source, factsOf(await file.handle.stat()))
    return file
  } catch (error) {
    await file[Symbol.asyncDispose]()
    throw error
  }
}

function replacedSource({ path }: DiskSource, cause?: unknown): StillframeError {
  return new StillframeError(
    "conflict",
    `${path} was replaced by a link or another file since the VM was attached; put the file back`,
    { cause },
  )
}
