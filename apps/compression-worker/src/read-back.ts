import { join } from "node:path"
import { diskHash, sha256File } from "@stillframe/codec/hash"
import { verifyFile } from "@stillframe/codec/verify"
import type { SnapshotRow } from "@stillframe/db/snapshots/snapshots"
import type { Verdict } from "@stillframe/db/snapshots/verifications"
import { type ErrorCode, StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { currentSources, type Disk } from "@stillframe/hypervisors/disks/disks"
import { rawMemoryName } from "@stillframe/storage/layout"
import { memoryEntry, readManifest, type ManifestFile } from "@stillframe/storage/manifest"
import type { GuardedWork } from "./stall-guard.ts"

interface Reading extends GuardedWork {
  readonly snapshot: SnapshotRow
  readonly threads: number
}

/** Errors that mean damage. All others mean that the file cannot be read just now. */
const damageCodes: ReadonlySet<ErrorCode> = new Set(["corrupted", "not_found", "conflict"])

/**
 * Reads every file of a sealed payload and compares it with its hash: the memory in whatever form the row
 * names, each disk layer and image, and a caller's disk that an earlier version linked with the hash of its
 * first verification. Throws what says nothing about the files: a failing device, an abort.
 */
export async function readBack(dir: string, reading: Reading): Promise<Verdict> {
  const baseSha256 = { ...reading.snapshot.base_sha256 }
  try {
    const manifest = await readManifest(dir, reading.snapshot.manifest_sha256)
    // Snapshots of earlier versions. Where there is no link, the file is its host's alone, and its restore
    // looks at it.
    const disks = (manifest.disks as unknown as Disk[]).map((disk) => ({
      ...disk,
      sources: disk.sources.filter(({ link }) => link !== undefined),
    }))
    const untold = new Set<string>()
    await currentSources(dir, disks, async (link) => {
      // Another time with a known hash: the read below compares. Without one nothing says what it held; its
      // use is refused.
      if (baseSha256[link] === undefined) untold.add(link)
      return true
    })
    const memory = memoryEntry(manifest)
    if (memory !== undefined) await readMemory(dir, memory, reading)
    for (const file of manifest.files) {
      if (file.role === "memory" || untold.has(file.name)) continue
      const sha256 = await readFile(dir, { sha256: baseSha256[file.name], ...file }, reading)
      if (file.role === "base") baseSha256[file.name] = sha256
    }
    return { damage: undefined, baseSha256 }
  } catch (error) {
    if (!(error instanceof StillframeError) || !damageCodes.has(error.code)) throw error
    return { damage: error.message, baseSha256 }
  }
}

async function readMemory(
  dir: string,
  { sha256, bytes }: ManifestFile & { sha256: string },
  reading: Reading,
): Promise<void> {
  const { snapshot, threads, signal, reached: onProgress } = reading
  const name = snapshot.memory_file ?? rawMemoryName
  if (sha256 !== snapshot.memory_sha256) throw differs("manifest.json", "names another hash of the memory")
  if (name === rawMemoryName) await readFile(dir, { name, role: "memory", sha256, bytes }, reading)
  else
    await verifyFile({
      path: join(dir, name),
      sha256,
      uncompressedBytes: bytes,
      threads,
      signal,
      onProgress,
    }).catch((error: unknown) => {
      throw named(name, error)
    })
}

/**
 * Resolves with its hash. `sha256` and `bytes`: what the file must have; without a hash any content is as
 * good.
 */
async function readFile(
  dir: string,
  { name, role, bytes, sha256: expected }: ManifestFile,
  { signal, reached: onBytes }: Reading,
): Promise<string> {
  const path = join(dir, name)
  const reading = { signal, fromDevice: true, onBytes }
  const hashed =
    role === "disk" || role === "base" ? diskHash(path, { ...reading, expected }) : sha256File(path, reading)
  const found = await hashed.catch((error: unknown) => {
    throw named(name, error)
  })
  if (found.bytes !== bytes) throw differs(name, `has ${counted(found.bytes, "byte")} instead of ${bytes}`)
  if (expected !== undefined && found.sha256 !== expected)
    throw differs(name, `has the SHA-256 ${found.sha256} instead of ${expected}`)
  return found.sha256
}

function differs(name: string, what: string): StillframeError {
  return new StillframeError("corrupted", `${name} ${what}`)
}

function named(name: string, error: unknown): unknown {
  if (!(error instanceof StillframeError)) return error
  if (error.code === "not_found")
    return new StillframeError(error.code, `${name} is missing; bring it back from a backup`, {
      cause: error,
    })
  return new StillframeError(error.code, `${name}: ${error.message}`, { cause: error })
}
