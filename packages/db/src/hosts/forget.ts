import { StillframeError } from "@stillframe/domain/errors"
import { notHeardOf } from "@stillframe/domain/lost-host"
import { counted } from "@stillframe/domain/text/counted"
import { inTransaction, type OwnedDatabase } from "../client.ts"
import { appendInstanceEvent } from "../events/events.ts"
import { deleteInstance } from "../instances/instances.ts"
import { cancelInstanceWork } from "../operations/operations.ts"
import type { Database } from "../schema.ts"
import { failCapturesOf } from "../snapshots/snapshots.ts"
import { knownHosts, leavesOf, type HostLeaves, type KnownHost, type LeftInstance } from "./known.ts"

const namesMax = 20

/**
 * Forgets a host that will not come back: its instances are deleted, its captures fail, all with their
 * events, and its row goes. Nothing on any disk is touched. Throws `not_found`, and `conflict` for a host
 * that is up or when `confirmed` is not the number of its instances: the message then says what it leaves.
 */
export async function forgetHost(
  db: OwnedDatabase,
  name: string,
  confirmed: number | undefined,
): Promise<HostLeaves> {
  return inTransaction(db, async (tx) => {
    // Its own heartbeat waits for this lock, and registers it anew afterwards.
    await tx.selectFrom("hosts").select("name").where("name", "=", name).forUpdate().execute()
    const [host] = await knownHosts(tx, name)
    if (host === undefined) throw new StillframeError("not_found", "host not found")
    if (host.up)
      throw new StillframeError(
        "conflict",
        `host "${name}" is up; stop its capture-worker before it is forgotten`,
      )
    const leaves = await leavesOf(tx, host)
    if (confirmed !== leaves.instances.length) throw unconfirmed(host, leaves)
    for (const { id } of leaves.instances) await forgetInstance(tx, id, name)
    await tx
      .deleteFrom("compression_workers")
      .where("name", "=", name)
      .where("pool", "=", host.pool)
      .execute()
    await tx.deleteFrom("hosts").where("name", "=", name).execute()
    return leaves
  })
}

async function forgetInstance(tx: Database, id: string, host: string): Promise<void> {
  await tx.selectFrom("instances").select("id").where("id", "=", id).forUpdate().execute()
  await failCapturesOf(tx, id, `host "${host}" was forgotten before the instance was captured`)
  await cancelInstanceWork(tx, id)
  const deleted = await deleteInstance(tx, id, { forgotten: true })
  if (deleted !== undefined) await appendInstanceEvent(tx, "instance.deleted", deleted)
}

function unconfirmed(
  host: KnownHost,
  { instances, captures, snapshots, stored_bytes }: HostLeaves,
): StillframeError {
  const since = notHeardOf({ name: host.name, since: host.heartbeat_at.toISOString() })
  const onOverlays = instances.filter((instance) => instance.may_use_overlays)
  const effects = [
    `deletes ${counted(instances.length, "instance")}${namesOf(instances)}`,
    `fails ${counted(captures, "uncaptured snapshot")}`,
    `leaves ${counted(snapshots, "snapshot")} (${counted(stored_bytes, "byte")}) in the storage pool "${host.pool}" that no other host has`,
    ...(onOverlays.length === 0 ? [] : [staying(onOverlays)]),
  ]
  return new StillframeError(
    "conflict",
    `${since}. Forgetting it ${effects.join(", ")}; files and VMs of that machine stay as they are. Repeat with ?confirm=${instances.length}, the number of its instances`,
  )
}

function namesOf(instances: readonly LeftInstance[]): string {
  const named = instances.slice(0, namesMax).map(({ name }) => name)
  if (instances.length > namesMax) named.push("…")
  return named.length === 0 ? "" : ` (${named.join(", ")})`
}

/** Overlays lie beside their disks, wherever the owner has those. */
const staying = (instances: readonly LeftInstance[]): string =>
  `leaves at most ${instances.length} attached VMs${namesOf(instances)} on overlays of a capture that was cut off, which lie beside their disks as <disk>.stillframe-overlay (docs/attached-vms.md says how to write them back; the host does it if it comes back)`
