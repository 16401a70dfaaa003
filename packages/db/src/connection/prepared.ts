import { sql, type RawBuilder } from "kysely"
import { Client } from "pg"

/**
 * Marks a statement that each connection prepares once, since Postgres would spend more on planning it than
 * on running it. Its text must be the same each time, its plan good for any parameters, and its columns
 * named: Postgres refuses a prepared `*` once a later version has added a column.
 */
export function prepared(name: string): RawBuilder<unknown> {
  return sql.raw(`/* prepared: ${name} */`)
}

const mark = /^(?:select )?\/\* prepared: (\w+) \*\//

/** A connection that prepares the statements marked as such. Not for a pooler in transaction mode. */
export class PreparingClient extends Client {
  // Handles the one form of `query` that carries a marked statement; the others pass through.
  override query = ((...args: [unknown, ...never[]]): unknown => {
    const [text, values] = args
    const name = typeof text === "string" ? mark.exec(text)?.[1] : undefined
    const query = super.query.bind(this) as (...args: unknown[]) => unknown
    return name === undefined ? query(...args) : query({ name, text, values })
  }) as Client["query"]
}
