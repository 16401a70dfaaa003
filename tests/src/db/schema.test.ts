import type { OwnedDatabase } from "@stillframe/db/client"
import { testDatabase } from "@stillframe/testing/database"
import { sql } from "kysely"
import { expect, test } from "vitest"

const header = `-- The schema that the migrations add up to, generated for readers. Nothing applies this file.
-- After a new migration: npx vitest run tests/src/db/schema.test.ts --update
`

test("migrations/schema.sql is the schema that the migrations make", async () => {
  await using place = await testDatabase()

  const text = [header, ...(await tables(place.db)), ...(await functions(place.db))].join("\n")

  await expect(text.replaceAll("public.", "")).toMatchFileSnapshot("../../../migrations/schema.sql")
})

/** Kysely keeps its own record of the migrations beside our tables. */
const ours = sql`relnamespace = 'public'::regnamespace and relname not like 'kysely%'`

async function tables(db: OwnedDatabase): Promise<string[]> {
  const { rows } = await sql<{ name: string; members: string[]; indexes: string[] }>`
    select relname as name,
      array(
        select format('%I %s', attname, format_type(atttypid, atttypmod))
          || case attidentity when 'a' then ' generated always as identity' else '' end
          || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
          || case when attnotnull then ' not null' else '' end
        from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum
        where attrelid = pg_class.oid and attnum > 0 and not attisdropped
        order by attnum
      ) || array(
        select format('constraint %I %s', conname, pg_get_constraintdef(oid))
        from pg_constraint
        where conrelid = pg_class.oid and contype <> 'n'
        order by contype = 'p' desc, conname
      ) as members,
      array(
        select pg_get_indexdef(indexrelid) || ';'
        from pg_index
        where indrelid = pg_class.oid and not exists (select from pg_constraint where conindid = indexrelid)
        order by indexrelid::regclass::text collate "C"
      ) as indexes
    from pg_class where relkind = 'r' and ${ours} order by relname`.execute(db)
  return rows.map(({ name, members, indexes }) =>
    [`create table ${name} (`, members.map((member) => `  ${member}`).join(",\n"), ");", ...indexes, ""].join(
      "\n",
    ),
  )
}

async function functions(db: OwnedDatabase): Promise<string[]> {
  const { rows } = await sql<{ text: string }>`
    select pg_get_functiondef(oid) || ';' as text
    from pg_proc where pronamespace = 'public'::regnamespace order by proname, oid`.execute(db)
  return rows.map(({ text }) => `${text}\n`)
}
