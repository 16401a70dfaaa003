import { Client } from "pg"

/**
 * Gives a database other defaults, such as `datestyle = 'German'`; connections that are opened later start
 * with them.
 */
export async function alterDatabase(url: string, ...settings: readonly string[]): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    for (const setting of settings)
      await client.query(
        `do $$ begin execute format('alter database %I set ${setting.replaceAll("'", "''")}', current_database()); end $$`,
      )
  } finally {
    await client.end()
  }
}
