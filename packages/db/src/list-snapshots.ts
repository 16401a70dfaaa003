import type { SnapshotKind, SnapshotStatus } from "@stillframe/domain/snapshot"
import type { Tags } from "@stillframe/domain/tags"
import { sql } from "kysely"
import { positionAt, readPage, type Page, type PageRequest } from "./page.ts"
import type { Database } from "./schema.ts"
import type { SnapshotRow } from "./snapshots.ts"

export interface SnapshotFilter {
  readonly sourceInstanceId?: string | undefined
  readonly kind?: SnapshotKind | undefined
  readonly name?: string | undefined
  readonly tags?: Tags | undefined
  readonly statuses: readonly SnapshotStatus[]
}

export async function listSnapshots(
  db: Database,
  filter: SnapshotFilter,
  page: PageRequest,
): Promise<Page<SnapshotRow>> {
  let query = db
    .selectFrom("snapshots")
    .selectAll()
    .select(positionAt.as("position_at"))
    .where("status", "in", filter.statuses)
  if (filter.sourceInstanceId !== undefined)
    query = query.where("source_instance_id", "=", filter.sourceInstanceId)
  if (filter.kind !== undefined) query = query.where("kind", "=", filter.kind)
  if (filter.name !== undefined) query = query.where("name", "=", filter.name)
  if (filter.tags !== undefined)
    query = query.where(sql<boolean>`tags @> ${JSON.stringify(filter.tags)}::jsonb`)
  return readPage(query, page)
}
