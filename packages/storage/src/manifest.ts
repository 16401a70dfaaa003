import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { z } from "zod"
import { namesIn } from "./directory.ts"
import { syncDir, writeDurably } from "./durable.ts"
import { manifestName } from "./layout.ts"

const fileSchema = z.object({
  name: z.string(),
  /** `state`: the devices' state, where it is not part of the memory's stream. */
  role: z.enum(["memory", "state", "disk", "base", "boot"]),
  /** Of the file as it was sealed. */
  bytes: z.number().int(),
  /** Of the uncompressed content. A caller's base file has none here: it is recorded by its size and times in `disks`. */
  sha256: z.string().optional(),
})

const manifestSchema = z.object({
  format: z.literal(1),
  /** Absent in the image of an instance in Standby. */
  snapshot_id: z.string().optional(),
  kind: z.enum(["Standby", "Stopped"]),
  token: z.string(),
  source_instance: z.object({ id: z.string(), name: z.string() }),
  hypervisor: z.object({ name: z.string(), version: z.string() }),
  /** The whole launch configuration: with it, the files and the hypervisor a person can restore by hand. */
  launch: z.record(z.string(), z.unknown()),
  /** Why there is none: the first option of its owner's command line that a launch can't say. */
  not_restorable: z.string().optional(),
  /** Why it has no memory file: its hypervisor keeps the memory in its state, where nobody else can read it. */
  opaque_memory: z.string().optional(),
  disks: z.array(z.record(z.string(), z.unknown())),
  captured_at: z.iso.datetime(),
  pause_ms: z.number(),
  files: z.array(fileSchema),
})

/** What a payload's `manifest.json` says: all that the row needs, so that a sealed payload can be taken in again from it alone. */
export type Manifest = z.infer<typeof manifestSchema>
export type ManifestFile = z.infer<typeof fileSchema>

/** Throws `corrupted` when there is none or it can't be understood, and the system's error when it can't be read. */
export async function readManifest(dir: string): Promise<Manifest> {
  try {
    return manifestSchema.parse(JSON.parse(await readFile(join(dir, manifestName), "utf8")))
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (typeof code === "string" && code !== "ENOENT") throw cause
    throw new StillframeError("corrupted", `the payload has no readable ${manifestName}`, { cause })
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

/** The memory file's entry; undefined for kind Stopped, and where the memory is in the state. Throws `corrupted` when it should have one and has not. */
export function memoryEntry(manifest: Manifest): (ManifestFile & { sha256: string }) | undefined {
  if (manifest.kind === "Stopped" || manifest.opaque_memory !== undefined) return undefined
  const entry = manifest.files.find(({ role }) => role === "memory")
  if (entry?.sha256 === undefined)
    throw new StillframeError("corrupted", `the manifest of payload ${manifest.token} names no memory file`)
  return { ...entry, sha256: entry.sha256 }
}
