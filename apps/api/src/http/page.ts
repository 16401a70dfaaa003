import { setImmediate as nextTurn } from "node:timers/promises"
import type { Page, PageRequest, Position } from "@stillframe/db/page"
import { StillframeError } from "@stillframe/domain/errors"
import { z } from "zod"
import { listLimit, numberInQuery } from "./input/schemas.ts"
import type { Answer } from "./route.ts"

/** Parameters that every list has beside its filters. */
export const pageQuery = {
  limit: numberInQuery({ min: 1, max: listLimit })
    .optional()
    .meta({ description: "The most resources in the answer. Defaults to 10,000." }),
  cursor: z
    .string()
    .min(1)
    .max(512)
    .optional()
    .meta({ description: "The start of the page: the `X-Next-Cursor` of the previous page." }),
  sort: z
    .enum(["created_at", "-created_at"])
    .optional()
    .meta({ description: "The order: oldest first, or newest first (`-created_at`, the default)." }),
}

type PageQuery = z.output<z.ZodObject<typeof pageQuery>>

/** Newest first unless asked otherwise. Throws `bad_request` for a cursor that is none of ours. */
export function pageRequest({ limit = listLimit, cursor, sort = "-created_at" }: PageQuery): PageRequest {
  return { limit, sort, ...(cursor !== undefined && { after: readCursor(cursor) }) }
}

/** Written at a time: some milliseconds' worth of the largest rows. */
const rowsPerTurn = 250

/**
 * A bare array, as the contract has it; that there is more is said in the headers. `url`: path and query as
 * they were asked.
 */
export async function pageAnswer<Row>(
  url: string,
  { rows, next }: Page<Row>,
  show: (row: Row) => object,
): Promise<Answer> {
  const json = await writeRows(rows, show)
  if (next === undefined) return { status: 200, json }
  const cursor = Buffer.from(JSON.stringify([next.createdAt, next.id])).toString("base64url")
  return { status: 200, json, headers: nextPageHeaders(url, cursor) }
}

/** 10,000 rows at once would hold the event loop for as long as many other requests take. */
async function writeRows<Row>(rows: readonly Row[], show: (row: Row) => object): Promise<string> {
  const written: string[] = []
  for (const [index, row] of rows.entries()) {
    if (index > 0 && index % rowsPerTurn === 0) await nextTurn()
    written.push(JSON.stringify(show(row)))
  }
  return `[${written.join(",")}]`
}

/** How a client is told where the next page of a list begins. `url`: path and query as they were asked. */
export function nextPageHeaders(url: string, cursor: string): Record<string, string> {
  const [path = "", query = ""] = url.split("?", 2)
  const asked = new URLSearchParams(query)
  asked.set("cursor", cursor)
  return { Link: `<${path}?${asked.toString()}>; rel="next"`, "X-Next-Cursor": cursor }
}

const createdAtLengthMax = "2026-01-31T12:00:00.000000Z".length

function readCursor(cursor: string): Position {
  try {
    const [createdAt, id] = cursorSchema.parse(JSON.parse(Buffer.from(cursor, "base64url").toString()))
    return { createdAt, id }
  } catch (cause) {
    const message =
      'parameter "cursor" in query has an error: it is not a cursor of this API; start without a cursor'
    throw new StillframeError("bad_request", message, { cause })
  }
}

// As Postgres writes it. The year 0 is a date of ISO 8601, but none of Postgres, which also takes no endless
// fraction.
const createdAtSchema = z.iso
  .datetime()
  .max(createdAtLengthMax)
  .refine((time) => !time.startsWith("0000"))
const cursorSchema = z.tuple([createdAtSchema, z.string().regex(/^[a-z0-9]{1,32}$/)])
