import { StillframeError } from "@stillframe/domain/errors"
import { createId } from "@stillframe/domain/ids"
import { sessionSettings } from "@stillframe/domain/postgres/session"
import { sql } from "kysely"
import type { OwnedDatabase } from "./client.ts"
import type { Database } from "./schema.ts"

const versionMin = 14

/**
 * Refuses a transaction-mode pooler that the settings do not tell of: what one connection sets there, the
 * next one has, and neither prepared statements nor notifications work.
 */
export async function assertOwnSessions(db: OwnedDatabase): Promise<void> {
  const mark = createId()
  const set = (value: string) => sql`select set_config('stillframe.session', ${value}, false)`
  const seen = await db.connection().execute(async (one) => {
    await set(mark).execute(one)
    const other = await sql<{ mark: string | null }>`
      select current_setting('stillframe.session', true) as mark`.execute(db)
    await set("").execute(one)
    return other.rows[0]?.mark
  })
  if (seen === mark)
    throw new StillframeError(
      "unavailable",
      "DATABASE_URL leads to a pooler in transaction mode. Set DATABASE_DIRECT_URL to Postgres itself, for notifications and the queue.",
    )
}

interface Found {
  readonly version: number
  readonly standby: boolean
  readonly readOnly: boolean
  readonly encoding: string
  readonly schema: string | null
  readonly searchPath: string
  /** As `ALTER` takes it. */
  readonly role: string
  readonly settings: Readonly<Record<string, string>>
}

/**
 * Refuses, with `unavailable` and a remedy, a database on which Stillframe would work wrongly or not at all.
 */
export async function assertUsable(db: Database): Promise<void> {
  const mistake = mistakeIn(await lookAt(db))
  if (mistake !== undefined) throw new StillframeError("unavailable", mistake)
}

async function lookAt(db: Database): Promise<Found> {
  const { rows } = await sql<Found>`
    select current_setting('server_version_num')::int / 10000 as version,
      pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as "readOnly",
      current_setting('server_encoding') as encoding, current_schema()::text as schema,
      current_setting('search_path') as "searchPath",
      format('ROLE %I IN DATABASE %I', current_user, current_database()) as role,
      (select json_object_agg(name, setting) from pg_settings
        where name = any(${sessionSettings.map(({ name }) => name)})) as settings`.execute(db)
  const [found] = rows
  if (found === undefined) throw new Error("the database answered nothing about itself")
  return found
}

function mistakeIn({ version, standby, readOnly, encoding, schema, searchPath, role, settings }: Found) {
  if (version < versionMin)
    return `Postgres ${version} is too old: Stillframe needs ${versionMin} or newer. Upgrade it, or set DATABASE_URL to another one.`
  if (standby)
    return "DATABASE_URL leads to a standby, which takes no writes. Set it to the primary, or promote the standby."
  if (readOnly)
    return "the database is read-only: default_transaction_read_only is on. Turn it off for this database and role, then start again."
  if (encoding !== "UTF8")
    return `the database's encoding is ${encoding}, so not every name can be stored. Create one with ENCODING 'UTF8' TEMPLATE template0, and set DATABASE_URL to it.`
  if (schema === null)
    return `the search_path (${searchPath}) names no schema that exists and that the user may use. Create one of them, or change the search_path of the database or the role.`
  return unsuitable(settings, role)
}

/** Only where a pooler stands between us and Postgres: elsewhere each connection has set its own. */
function unsuitable(settings: Found["settings"], role: string): string | undefined {
  const wrong = sessionSettings.filter(({ name, accepts }) => {
    const setting = settings[name]
    return setting !== undefined && accepts !== undefined && !accepts(setting)
  })
  if (wrong.length === 0) return undefined
  const found = wrong.map(({ name }) => `${name} is '${settings[name]}'`).join(", ")
  const remedy = wrong.map(({ name, value }) => `ALTER ${role} SET ${name} = '${value}'`).join("; ")
  return `the database's defaults do not suit Stillframe, and the pooler of DATABASE_URL does not let it change them: ${found}. Run ${remedy}, let the pooler reconnect, and start again.`
}
