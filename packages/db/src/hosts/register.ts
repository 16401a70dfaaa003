import { setTimeout as delay } from "node:timers/promises"
import type { HostCapabilities } from "@stillframe/domain/capabilities"
import { StillframeError } from "@stillframe/domain/errors"
import type { Problem } from "@stillframe/domain/problem"
import { sql } from "kysely"
import { clockPlus } from "../client.ts"
import type { Database } from "../schema.ts"
import { hostFreshMs } from "./hosts.ts"

const retryMs = 500

export interface HostRegistration {
  readonly name: string
  /** The id in its `DATA_DIR`, which a copy of that directory has too. */
  readonly hostId: string
  /**
   * The id of its kernel's boot: no two machines have the same, and a machine has another after each boot.
   */
  readonly bootId: string
  readonly pool: string
  readonly hypervisors: HostCapabilities
  /** At present; absent: none. */
  readonly problems?: readonly Problem[]
}

/** The host that keeps another one from being registered. */
interface Holder {
  readonly name: string
  readonly hostId: string
  readonly heartbeatAt: Date
}

/**
 * Registers a host, or says that it still lives. Throws `conflict` while another machine is up that holds the
 * name, or that runs on a `DATA_DIR` with the same id.
 */
export async function heartbeat(db: Database, host: HostRegistration): Promise<void> {
  const holder = await beat(db, host)
  if (holder !== undefined) throw held(holder, host)
}

/**
 * The first heartbeat of a worker. The machine that sent the last one with this id may have been this one
 * before it booted: then it sends no more, and the host is registered once the last one is stale. `onWait` is
 * called when that wait begins. Throws as `heartbeat` does.
 */
export async function registerHost(
  db: Database,
  host: HostRegistration,
  onWait: (reason: string) => void,
): Promise<void> {
  let first: Holder | undefined
  for (;;) {
    const holder = await beat(db, host)
    if (holder === undefined) return
    if (holder.hostId !== host.hostId) throw held(holder, host)
    if (first === undefined) onWait(waits(holder))
    first ??= holder
    if (holder.heartbeatAt.getTime() !== first.heartbeatAt.getTime()) throw held(holder, host)
    await delay(retryMs)
  }
}

/** Undefined when the host is registered. */
async function beat(db: Database, host: HostRegistration): Promise<Holder | undefined> {
  for (;;) {
    const holder = await holderOf(db, host)
    if (holder !== undefined) return holder
    const { rows } = await sql`
      insert into hosts (name, host_id, boot_id, pool, capabilities, problems)
      values (${host.name}, ${host.hostId}, ${host.bootId}, ${host.pool}, ${JSON.stringify(host.hypervisors)},
        ${JSON.stringify(host.problems ?? [])})
      on conflict (name) do update set host_id = excluded.host_id, boot_id = excluded.boot_id, pool = excluded.pool,
        capabilities = excluded.capabilities, problems = excluded.problems, heartbeat_at = clock()
      where hosts.host_id = excluded.host_id and hosts.boot_id = excluded.boot_id
        or hosts.heartbeat_at < ${clockPlus(-hostFreshMs)}
      returning name`.execute(db)
    if (rows.length > 0) return undefined
    // Another machine was faster: the next look finds it.
  }
}

/** A copied `DATA_DIR` is up under its own name where each machine takes its HOST_NAME from its hostname. */
async function holderOf(
  db: Database,
  { name, hostId, bootId }: HostRegistration,
): Promise<Holder | undefined> {
  return db
    .selectFrom("hosts")
    .select(["name", "host_id as hostId", "heartbeat_at as heartbeatAt"])
    .where("heartbeat_at", ">=", clockPlus(-hostFreshMs))
    .where((row) =>
      row.or([
        row.and([row("name", "=", name), row("host_id", "<>", hostId)]),
        row.and([row("host_id", "=", hostId), row("boot_id", "<>", bootId)]),
      ]),
    )
    .limit(1)
    .executeTakeFirst()
}

function held(holder: Holder, { name, hostId }: HostRegistration): StillframeError {
  if (holder.hostId !== hostId)
    return new StillframeError(
      "conflict",
      `the host name "${name}" is held by another machine that is up; set HOST_NAME to a name of this machine's own`,
    )
  return new StillframeError(
    "conflict",
    `the host "${holder.name}" is up on another machine, and its host.json has the same id as that in DATA_DIR here: one of the two directories is a copy. Stop the worker of one of the two machines. To make the machine with the copy a host of its own, remove host.json and instances/ from the copy, set HOST_NAME to a name of its own, and start it again`,
  )
}

const waits = ({ name }: Holder): string =>
  `another boot has sent a heartbeat of the host "${name}" in the last ${hostFreshMs / 1_000} s: this machine before it booted, or a machine with a copy of this DATA_DIR; the start goes on when that heartbeat is stale, and fails if another one follows`
