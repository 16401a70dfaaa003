import { join } from "node:path"

/** Name of the raw memory file in every payload. */
export const rawMemoryName = "memory"
export const manifestName = "manifest.json"
/**
 * A payload's files that no VM opens by itself: VMs get memory through us, or a link that is opened for them
 * when one is made.
 */
export const payloadMode = 0o400

/** Holds one directory per fencing token; the row names the published one. */
export function snapshotDir(storageDir: string, snapshotId: string): string {
  return join(storageDir, "snapshots", snapshotId)
}

export function payloadDir(storageDir: string, snapshotId: string, token: string): string {
  return join(snapshotDir(storageDir, snapshotId), token)
}

/** The token of the operation that made it is part of the name, so no name is ever used twice. */
export function compressedMemoryName(token: string, algorithm: "zstd" | "lz4"): string {
  return `${rawMemoryName}.${token}.${algorithm === "zstd" ? "zst" : "lz4"}`
}

/** True for the memory in any form and of any try. */
export function isMemoryFile(name: string): boolean {
  return name === rawMemoryName || name.startsWith(`${rawMemoryName}.`)
}

/** The content of frames while they are compressed again. */
export function unpackedMemoryName(token: string): string {
  return `${rawMemoryName}.${token}.raw`
}

/** All of an instance on its host: a directory per generation, `pause.json` beside them. */
export function instanceDir(dataDir: string, instanceId: string): string {
  return join(dataDir, "instances", instanceId)
}

/** Holds payloads with the memory of an instance in Standby; the row names the current one. */
export function standbyDir(dataDir: string, instanceId: string): string {
  return join(instanceDir(dataDir, instanceId), "standby")
}

export function generationDir(dataDir: string, instanceId: string, generation: number): string {
  return join(instanceDir(dataDir, instanceId), String(generation))
}
