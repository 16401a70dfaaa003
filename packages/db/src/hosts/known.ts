import type { HostCapabilities } from "@stillframe/domain/capabilities"
import { hasVm, type InstanceState } from "@stillframe/domain/instance"
import type { Problem } from "@stillframe/domain/problem"
import { sql } from "kysely"
import { clockPlus } from "../client.ts"
import type { Database } from "../schema.ts"
import { hostFreshMs } from "./hosts.ts"

/** A host that has registered and was not forgotten, up or not. */
export interface KnownHost {
  readonly name: string
  readonly pool: string
  readonly hypervisors: HostCapabilities
  readonly problems: readonly Problem[]
  readonly heartbeat_at: Date
  readonly up: boolean
  readonly instance_count: number
}

/** All of them, or the one with this name. */
export async function knownHosts(db: Database, name?: string): Promise<KnownHost[]> {
  return db
    .selectFrom("hosts")
    .select(["name", "pool", "capabilities as hypervisors", "problems", "heartbeat_at"])
    .select(sql<boolean>`heartbeat_at > ${clockPlus(-hostFreshMs)}`.as("up"))
    .select((row) =>
      row
        .selectFrom("instances")
        .select(sql<number>`count(*)`.as("count"))
        .whereRef("instances.host", "=", "hosts.name")
        .where("deleted_at", "is", null)
        .$asScalar()
        .$notNull()
        .as("instance_count"),
    )
    .$if(name !== undefined, (query) => query.where("name", "=", name ?? ""))
    .orderBy("name")
    .execute()
}

export interface LeftInstance {
  readonly id: string
  readonly name: string
  readonly state: InstanceState
  /**
   * True for an attached VM that may write to overlays of ours: only its host knows whether a capture was cut
   * off there. Absent for every other.
   */
  readonly may_use_overlays?: true
}

/** All that only a host has, as far as the database knows. */
export interface HostLeaves {
  readonly instances: readonly LeftInstance[]
  /** Snapshots that it is still to capture. */
  readonly captures: number
  /** Snapshots in its pool, and their bytes on disk; none where another host has that pool too. */
  readonly snapshots: number
  readonly stored_bytes: number
}

export async function leavesOf(
  db: Database,
  { name, pool }: Pick<KnownHost, "name" | "pool">,
): Promise<HostLeaves> {
  const found = await db
    .selectFrom("instances")
    .select(["id", "name", "state"])
    .select(sql<boolean>`coalesce((attached ->> 'allowOverlay')::boolean, false)`.as("overlays"))
    .where("host", "=", name)
    .where("deleted_at", "is", null)
    .orderBy("name")
    .execute()
  const instances = found.map(({ overlays, ...instance }): LeftInstance => {
    return { ...instance, ...(overlays && hasVm(instance.state) && { may_use_overlays: true }) }
  })
  const { rows } = await sql<Omit<HostLeaves, "instances">>`
    select count(*) filter (where host = ${name} and status in ('queued', 'capturing')) as captures,
      count(*) filter (where ${theirs(name, pool)}) as snapshots,
      coalesce(sum(stored_bytes) filter (where ${theirs(name, pool)}), 0)::bigint as stored_bytes
    from snapshots where host = ${name} or pool = ${pool}`.execute(db)
  return { instances, ...(rows[0] ?? { captures: 0, snapshots: 0, stored_bytes: 0 }) }
}

function theirs(name: string, pool: string): ReturnType<typeof sql<boolean>> {
  return sql<boolean>`pool = ${pool} and status = 'ready'
    and not exists (select from hosts where hosts.pool = ${pool} and hosts.name <> ${name})`
}
