import { lstat } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { namesIn } from "./directory.ts"
import { syncDir, writeDurably } from "./durable.ts"
import { manifestName } from "./layout.ts"
import { parseManifest, type Manifest, type ManifestFile } from "./manifest-format.ts"
import { notRegular, readRegular } from "./open-regular.ts"

/** A VM of 16 disks with hundreds of layers has some hundred KiB. */
const manifestBytesMax = 8 * 1024 ** 2

export type { Manifest, ManifestFile } from "./manifest-format.ts"

/** Throws `corrupted` when there is none or it can't be understood, and the system's error when it can't be read. */
export async function readManifest(dir: string): Promise<Manifest> {
  try {
    return parseManifest(await readRegular(join(dir, manifestName), manifestBytesMax))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (!(cause instanceof StillframeError) && typeof code === "string" && code !== "ENOENT") throw cause
    throw new StillframeError(
      "corrupted",
      `the payload has no readable ${manifestName}; bring its files back from a backup`,
      {
        cause,
      },
    )
  }
}

/** The last step of sealing: from here on the directory holds a whole snapshot. Everything else in it is durable already. */
export async function writeManifest(dir: string, manifest: Manifest): Promise<void> {
  await writeDurably(join(dir, manifestName), `${JSON.stringify(manifest, undefined, 2)}\n`)
  await syncDir(join(dir, ".."))
}

/** The sealed attempt below `dir` that a worker left without publishing it, if there is one. */
export async function sealedAttempt(dir: string): Promise<Manifest | undefined> {
  for (const token of await namesIn(dir)) {
    const names = await namesIn(join(dir, token))
    if (names.includes(manifestName)) return readManifest(join(dir, token))
  }
  return undefined
}

/** Throws `corrupted` naming a file of the payload that is not there. `memoryFile`: the present form of its memory. */
export async function requireFiles(dir: string, manifest: Manifest, memoryFile?: string): Promise<void> {
  for (const { name, role } of manifest.files) {
    // A caller's file is judged by what the manifest says of its source.
    if (role !== "base") await requireFile(dir, role === "memory" ? (memoryFile ?? name) : name)
  }
}

/** Throws as `requireFiles` does when one file is missing or is no regular file. */
export async function requireFile(dir: string, name: string): Promise<void> {
  const found = await lstat(join(dir, name)).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") throw cause
    throw new StillframeError("corrupted", `${name} is missing; bring it back from a backup`, { cause })
  })
  if (!found.isFile()) throw new StillframeError("corrupted", `${name}: ${notRegular().message}`)
}

/** The memory file's entry; undefined for kind Stopped, and where the memory is in the state. Throws `corrupted` when it should have one and has not. */
export function memoryEntry(manifest: Manifest): (ManifestFile & { sha256: string }) | undefined {
  if (manifest.kind === "Stopped" || manifest.opaque_memory !== undefined) return undefined
  const entry = manifest.files.find(({ role }) => role === "memory")
  if (entry?.sha256 === undefined)
    throw new StillframeError("corrupted", `the manifest of payload ${manifest.token} names no memory file`)
  return { ...entry, sha256: entry.sha256 }
}
