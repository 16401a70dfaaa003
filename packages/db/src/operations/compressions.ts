import type { EffectiveCompression } from "@stillframe/domain/compression"
import { clock } from "../client.ts"
import type { Database } from "../schema.ts"
import type { SnapshotRow } from "../snapshots/snapshots.ts"
import type { ClaimedOperation } from "./operations.ts"

/** The parameters of a compression. */
export interface CompressParams {
  /** The snapshot was completed before: this is not what its subscribers have waited for. */
  readonly again?: true
  /** How the memory is compressed as long as this one is not published. */
  readonly before?: EffectiveCompression
}

export function compressParams({ params }: ClaimedOperation): CompressParams {
  return params
}

export interface CompressedMemory {
  readonly memoryFile: string
  readonly compressedBytes: number
  readonly uncompressedBytes: number
  readonly sizeBytes: number
  readonly storedBytes: number
  readonly sharedBytes: number
}

/**
 * Has a captured snapshot wait for a compression, its first or another one; its files stay what they are
 * until that is published.
 */
export async function startCompression(
  tx: Database,
  id: string,
  compression: EffectiveCompression,
): Promise<SnapshotRow> {
  return tx
    .updateTable("snapshots")
    .set({
      compression: JSON.stringify(compression),
      compression_state: "compressing",
      compression_error: null,
      progress: null,
    })
    .where("id", "=", id)
    .returningAll()
    .executeTakeFirstOrThrow()
}

/** Names the compressed memory file; the one before is from now on only waiting for its last reader. */
export async function publishCompressed(
  tx: Database,
  id: string,
  compressed: CompressedMemory,
): Promise<SnapshotRow | undefined> {
  return (
    tx
      .updateTable("snapshots")
      .set({
        memory_file: compressed.memoryFile,
        compressed_size_bytes: compressed.compressedBytes,
        uncompressed_size_bytes: compressed.uncompressedBytes,
        size_bytes: compressed.sizeBytes,
        stored_bytes: compressed.storedBytes,
        shared_bytes: compressed.sharedBytes,
        compression_state: "compressed",
        compression_error: null,
        superseded: true,
        verified_at: clock,
        progress: null,
      })
      .where("id", "=", id)
      .where("status", "=", "ready")
      .where("compression_state", "=", "compressing")
      // A quarantined snapshot is not compressed.
      .where("corrupted_at", "is", null)
      .returningAll()
      .executeTakeFirst()
  )
}

/** Records why a compression has failed. `before`: how the memory was compressed already, and still is. */
export async function failCompression(
  tx: Database,
  id: string,
  { message, before }: { message: string; before: EffectiveCompression | undefined },
): Promise<SnapshotRow | undefined> {
  return tx
    .updateTable("snapshots")
    .set({
      compression_error: message,
      progress: null,
      // Files that tries of dead workers left.
      superseded: true,
      ...(before === undefined
        ? { compression_state: "error" }
        : { compression_state: "compressed", compression: JSON.stringify(before) }),
    })
    .where("id", "=", id)
    .where("status", "=", "ready")
    .where("compression_state", "=", "compressing")
    .returningAll()
    .executeTakeFirst()
}
