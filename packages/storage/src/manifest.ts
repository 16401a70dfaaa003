import { createHash } from "node:crypto"
import { lstat } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { namesIn } from "./directory.ts"
import { syncDir, writeDurably } from "./durable.ts"
import { exists } from "./exists.ts"
import { manifestName, payloadMode } from "./layout.ts"
import { parseManifest, type Manifest, type ManifestFile } from "./manifest-format.ts"
import { notRegular, readRegular } from "./open-regular.ts"

/** A VM of 16 disks with hundreds of layers has some hundred KiB. */
const manifestBytesMax = 8 * 1024 ** 2

export type { Manifest, ManifestFile } from "./manifest-format.ts"

/**
 * `sha256`: of the manifest as its snapshot was published; without it any is taken. Throws `corrupted` when
 * there is none, it can't be understood or has another hash, and the system's error when it can't be read.
 */
export async function readManifest(dir: string, sha256?: string | null): Promise<Manifest> {
  try {
    const text = await readManifestText(dir)
    if (typeof sha256 === "string" && hashOf(text) !== sha256)
      throw new StillframeError("corrupted", `its SHA-256 is not ${sha256}`)
    return parseManifest(text)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (!(cause instanceof StillframeError) && typeof code === "string" && code !== "ENOENT") throw cause
    if (code === "ENOENT") throw (await exists(dir)) ? missingFile(manifestName, cause) : nothingThere(cause)
    throw new StillframeError(
      "corrupted",
      `${manifestName} is damaged or was changed; bring it back from a backup`,
      { cause },
    )
  }
}

const nothingThere = (cause: unknown): StillframeError =>
  new StillframeError("corrupted", "all files are missing; bring them back from a backup", { cause })

/**
 * The SHA-256 of a payload's manifest, in hexadecimal. Throws as `readManifest` does when it can't be read.
 */
export async function hashManifest(dir: string): Promise<string> {
  return hashOf(await readManifestText(dir))
}

const readManifestText = (dir: string): Promise<string> =>
  readRegular(join(dir, manifestName), manifestBytesMax)

const hashOf = (text: string): string => createHash("sha256").update(text).digest("hex")

/**
 * The last step of sealing: from here on the directory holds a whole snapshot. Everything else in it is
 * durable already.
 */
export async function writeManifest(dir: string, manifest: Manifest): Promise<void> {
  await writeDurably(join(dir, manifestName), `${JSON.stringify(manifest, undefined, 2)}\n`, payloadMode)
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

/**
 * Throws `corrupted` naming a file of the payload that is not there. `memoryFile`: the present form of its
 * memory.
 */
export async function requireFiles(dir: string, manifest: Manifest, memoryFile?: string): Promise<void> {
  for (const { name, role } of manifest.files) {
    // A caller's file is compared with the record of its source in the manifest.
    if (role !== "base") await requireFile(dir, role === "memory" ? (memoryFile ?? name) : name)
  }
}

/** Throws as `requireFiles` does when one file is missing or is no regular file. */
export async function requireFile(dir: string, name: string): Promise<void> {
  const found = await lstat(join(dir, name)).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") throw cause
    throw missingFile(name, cause)
  })
  if (!found.isFile()) throw strangeFile(name)
}

export const missingFile = (name: string, cause?: unknown): StillframeError =>
  new StillframeError("corrupted", `${name} is missing; bring it back from a backup`, { cause })

export const strangeFile = (name: string, cause?: unknown): StillframeError =>
  new StillframeError("corrupted", `${name}: ${notRegular().message}`, { cause })

/**
 * The memory file's entry; undefined for kind Stopped, and where the memory is in the state. Throws
 * `corrupted` when it should have one and has not.
 */
export function memoryEntry(manifest: Manifest): (ManifestFile & { sha256: string }) | undefined {
  if (manifest.kind === "Stopped" || manifest.opaque_memory !== undefined) return undefined
  const entry = manifest.files.find(({ role }) => role === "memory")
  if (entry?.sha256 === undefined)
    throw new StillframeError("corrupted", `the manifest of payload ${manifest.token} names no memory file`)
  return { ...entry, sha256: entry.sha256 }
}
