import type { SnapshotKind, SnapshotRecord, SnapshotStatus } from "@stillframe/domain/snapshot"
import type { Tags } from "@stillframe/domain/text/tags"
import { sql } from "kysely"
import { lostPool, poolContact } from "../hosts/contact.ts"
import { positionAt, readPage, type Page, type PageRequest } from "../page.ts"
import type { Database } from "../schema.ts"

export interface SnapshotFilter {
  readonly sourceInstanceId?: string | undefined
  readonly kind?: SnapshotKind | undefined
  readonly name?: string | undefined
  readonly tags?: Tags | undefined
  readonly statuses: readonly SnapshotStatus[]
}

/** Only the listed columns: reading and parsing the rest of each row would be felt. */
const columns = [
  "id",
  "kind",
  "status",
  "name",
  "tags",
  "source_instance_id",
  "source_instance_name",
  "source_hypervisor",
  "capture",
  "compression",
  "compression_state",
  "compression_error",
  "compression_reason",
  "restorable_reason",
  "size_bytes",
  "uncompressed_size_bytes",
  "compressed_size_bytes",
  "stored_bytes",
  "shared_bytes",
  "progress",
  "error_code",
  "error_message",
  "pause_ms",
  "created_at",
  "captured_at",
  "verified_at",
  "corrupted_at",
] as const

export async function listSnapshots(
  db: Database,
  filter: SnapshotFilter,
  page: PageRequest,
): Promise<Page<SnapshotRecord>> {
  let query = db
    .selectFrom("snapshots")
    .leftJoin(poolContact, "contact.contact_name", "snapshots.pool")
    .select(columns)
    .select([lostPool.as("lost_pool"), positionAt.as("position_at")])
    .where("status", "in", filter.statuses)
  if (filter.sourceInstanceId !== undefined)
    query = query.where("source_instance_id", "=", filter.sourceInstanceId)
  if (filter.kind !== undefined) query = query.where("kind", "=", filter.kind)
  if (filter.name !== undefined) query = query.where("name", "=", filter.name)
  if (filter.tags !== undefined)
    query = query.where(sql<boolean>`tags @> ${JSON.stringify(filter.tags)}::jsonb`)
  return readPage(query, page)
}
