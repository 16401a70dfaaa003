import { isRecord, listOf, optionalText, record, text } from "./json-check.ts"

const roles = ["memory", "state", "disk", "base", "boot"] as const

export interface ManifestFile {
  readonly name: string
  /** `state`: the devices' state, where it is not part of the memory's stream. */
  readonly role: (typeof roles)[number]
  /** The size of the sealed file. */
  readonly bytes: number
  /**
   * The uncompressed content's. A caller's base file of an earlier version has none: `disks` has its size and
   * times.
   */
  readonly sha256?: string | undefined
}

/**
 * The content of `manifest.json`: everything that the row needs, so a sealed payload can be adopted without
 * it.
 */
export interface Manifest {
  readonly format: 1
  /** Absent in the image of an instance in Standby. */
  readonly snapshot_id?: string | undefined
  readonly kind: "Standby" | "Stopped"
  readonly token: string
  readonly source_instance: { readonly id: string; readonly name: string }
  readonly hypervisor: { readonly name: string; readonly version: string }
  /** The whole launch configuration: with it, the files and the hypervisor a person can restore by hand. */
  readonly launch: Record<string, unknown>
  /** Why there is none: the first option of its owner's command line that a launch can't say. */
  readonly not_restorable?: string | undefined
  /**
   * Why it has no memory file: its hypervisor keeps the memory in its state, where nobody else can read it.
   */
  readonly opaque_memory?: string | undefined
  readonly disks: Record<string, unknown>[]
  readonly captured_at: string
  readonly pause_ms: number
  readonly files: ManifestFile[]
}

const manifestCheck = record({
  format: (value) => value === 1,
  snapshot_id: optionalText,
  kind: (value) => value === "Standby" || value === "Stopped",
  token: text,
  source_instance: record({ id: text, name: text }),
  hypervisor: record({ name: text, version: text }),
  launch: isRecord,
  not_restorable: optionalText,
  opaque_memory: optionalText,
  disks: listOf(isRecord),
  captured_at: (value) => text(value) && !Number.isNaN(Date.parse(String(value))),
  pause_ms: Number.isFinite,
  files: listOf(
    record({
      name: text,
      role: (value) => roles.some((role) => role === value),
      bytes: Number.isSafeInteger,
      sha256: optionalText,
    }),
  ),
})

/** Throws a `SyntaxError` if the text is not a manifest. */
export function parseManifest(json: string): Manifest {
  const manifest: unknown = JSON.parse(json)
  if (!isManifest(manifest)) throw new SyntaxError("not the fields of a manifest")
  return manifest
}

export function isManifest(value: unknown): value is Manifest {
  return manifestCheck(value)
}
