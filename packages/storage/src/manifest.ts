import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { z } from "zod"
import { syncDir, writeDurably } from "./durable.ts"
import { manifestName, snapshotDir } from "./layout.ts"

const fileSchema = z.object({
  name: z.string(),
  role: z.enum(["memory", "disk", "base", "boot"]),
  /** Of the file as it was sealed. */
  bytes: z.number().int(),
  /** Of the uncompressed content. A caller's base file has none here: it is recorded by its size and times in `disks`. */
  sha256: z.string().optional(),
})

const manifestSchema = z.object({
  format: z.literal(1),
  snapshot_id: z.string(),
  kind: z.enum(["Standby", "Stopped"]),
  token: z.string(),
  source_instance: z.object({ id: z.string(), name: z.string() }),
  hypervisor: z.object({ name: z.string(), version: z.string() }),
  /** The whole launch configuration: with it, the files and the hypervisor a person can restore by hand. */
  launch: z.record(z.string(), z.unknown()),
  disks: z.array(z.record(z.string(), z.unknown())),
  captured_at: z.iso.datetime(),
  pause_ms: z.number(),
  files: z.array(fileSchema),
})

/** What a payload's `manifest.json` says: all that the row needs, so that a sealed payload can be taken in again from it alone. */
export type Manifest = z.infer<typeof manifestSchema>
export type ManifestFile = z.infer<typeof fileSchema>

/** Throws `corrupted` when there is none or it can't be understood. */
export async function readManifest(dir: string): Promise<Manifest> {
  try {
    return manifestSchema.parse(JSON.parse(await readFile(join(dir, manifestName), "utf8")))
  } catch (cause) {
    throw new StillframeError("corrupted", `the payload has no readable ${manifestName}`, { cause })
  }
}

/** The last step of sealing: from here on the directory holds a whole snapshot. Everything else in it is durable already. */
export async function writeManifest(dir: string, manifest: Manifest): Promise<void> {
  await writeDurably(join(dir, manifestName), `${JSON.stringify(manifest, undefined, 2)}\n`)
  await syncDir(join(dir, ".."))
}

/** The sealed attempt that a worker left without publishing it, if there is one. */
export async function sealedAttempt(storageDir: string, snapshotId: string): Promise<Manifest | undefined> {
  const dir = snapshotDir(storageDir, snapshotId)
  for (const token of await readdir(dir).catch(none)) {
    const names = await readdir(join(dir, token)).catch(none)
    if (names.includes(manifestName)) return readManifest(join(dir, token))
  }
  return undefined
}

/** The memory file's entry; every payload of kind Standby has one. */
export function memoryEntry(manifest: Manifest): ManifestFile & { sha256: string } {
  const entry = manifest.files.find(({ role }) => role === "memory")
  if (entry?.sha256 === undefined)
    throw new StillframeError("corrupted", `the manifest of ${manifest.snapshot_id} names no memory file`)
  return { ...entry, sha256: entry.sha256 }
}

function none(error: NodeJS.ErrnoException): string[] {
  if (error.code === "ENOENT" || error.code === "ENOTDIR") return []
  throw error
}
