import type { HostCapabilities } from "@stillframe/domain/capabilities"
import { createId } from "@stillframe/domain/ids"
import type { Problem } from "@stillframe/domain/problem"
import { sql } from "kysely"
import { clock } from "../client.ts"
import type { Database } from "../schema.ts"

/** A host or a worker that has not been heard of for this long is not up. */
export const hostFreshMs = 15_000

/** The installation's id, made once. */
export async function clusterId(db: Database): Promise<string> {
  await db
    .insertInto("cluster")
    .values({ id: createId() })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
  const { id } = await db.selectFrom("cluster").select("id").executeTakeFirstOrThrow()
  return id
}

/**
 * The facts that identify a host's `DATA_DIR`: its last owner, and how many instances have their files there.
 */
export async function knownHost(
  db: Database,
  name: string,
): Promise<{ name: string; installation: string; hostId: string | undefined; instances: number }> {
  const installation = await clusterId(db)
  const row = await db.selectFrom("hosts").select("host_id").where("name", "=", name).executeTakeFirst()
  const { instances } = await db
    .selectFrom("instances")
    .select(sql<number>`count(*)::int`.as("instances"))
    .where("host", "=", name)
    .where("deleted_at", "is", null)
    .executeTakeFirstOrThrow()
  return { name, installation, hostId: row?.host_id, instances }
}

/** Gives a host's name to the `DATA_DIR` with that id; for a host that is not up. */
export async function moveHost(db: Database, name: string, hostId: string): Promise<void> {
  await db.updateTable("hosts").set({ host_id: hostId }).where("name", "=", name).execute()
}

/** The last report of a host, up or not; undefined if it never sent one. */
export async function capabilitiesOf(db: Database, host: string): Promise<HostCapabilities | undefined> {
  const found = await db
    .selectFrom("hosts")
    .select("capabilities")
    .where("name", "=", host)
    .executeTakeFirst()
  return found?.capabilities
}

export interface LiveHost {
  readonly name: string
  readonly pool: string
  readonly hypervisors: HostCapabilities
  readonly problems: readonly Problem[]
}

/** The hosts that were heard of lately. */
export async function liveHosts(db: Database): Promise<LiveHost[]> {
  return db
    .selectFrom("hosts")
    .select(["name", "pool", "capabilities as hypervisors", "problems"])
    .where("heartbeat_at", ">", sql<Date>`${clock} - ${hostFreshMs} * interval '1 millisecond'`)
    .orderBy("name")
    .limit(1_000)
    .execute()
}

/**
 * The last heartbeat (RFC 3339) of any host or compression-worker with this name or pool; undefined: there
 * was none.
 */
export async function lastHeardOf(
  db: Database,
  workers: "hosts" | "compression_workers",
  { by, is }: { by: "name" | "pool"; is: string },
): Promise<{ since: string; up: boolean } | undefined> {
  const { rows } = await sql<{ heardAt: Date | null; up: boolean | null }>`
    select max(heartbeat_at) as "heardAt",
      max(heartbeat_at) > ${clock} - ${hostFreshMs} * interval '1 millisecond' as up
    from ${sql.table(workers)} where ${sql.ref(by)} = ${is}`.execute(db)
  const [found] = rows
  return found?.heardAt ? { since: found.heardAt.toISOString(), up: found.up === true } : undefined
}
