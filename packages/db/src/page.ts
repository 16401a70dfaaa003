import { sql, type RawBuilder } from "kysely"

/** Where one page of a list ends and the next begins: a row's time of creation, to the microsecond, and its id. */
export interface Position {
  /** RFC 3339 in UTC, as Postgres wrote it. A `Date` would round it, and rows would be skipped. */
  readonly createdAt: string
  readonly id: string
}

export type Sort = "created_at" | "-created_at"

export interface PageRequest {
  readonly limit: number
  readonly sort: Sort
  readonly after?: Position | undefined
}

export interface Page<Row> {
  readonly rows: Row[]
  /** Absent on the last page. */
  readonly next?: Position
}

/** A row of a paged list. `position_at` comes from `positionAt`. */
interface Positioned {
  readonly id: string
  readonly position_at: string
}

/** To be selected with each row of a paged list. */
export const positionAt: RawBuilder<string> = sql`to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

/** The rows beyond the last page; everything on the first. Needs the index on (created_at, id) to be cheap. */
export function beyond({ sort, after }: PageRequest): RawBuilder<boolean> {
  if (after === undefined) return sql`true`
  const { createdAt, id } = after
  return sort === "created_at"
    ? sql`(created_at, id) > (${createdAt}::timestamptz, ${id})`
    : sql`(created_at, id) < (${createdAt}::timestamptz, ${id})`
}

export function direction({ sort }: PageRequest): "asc" | "desc" {
  return sort === "created_at" ? "asc" : "desc"
}

/** Makes a page of `limit + 1` rows: the one too many says that there is more. */
export function toPage<Row extends Positioned>(rows: Row[], { limit }: PageRequest): Page<Row> {
  const last = rows.length > limit ? rows[limit - 1] : undefined
  if (last === undefined) return { rows }
  return { rows: rows.slice(0, limit), next: { createdAt: last.position_at, id: last.id } }
}
