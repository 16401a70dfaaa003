import { StillframeError } from "@stillframe/domain/errors"
import { createId, idPattern } from "@stillframe/domain/ids"
import {
  hasVm,
  instanceStatesBefore,
  type Hypervisor,
  type ImportState,
  type InstanceState,
  type SnapshotPolicy,
} from "@stillframe/domain/instance"
import type { Tags } from "@stillframe/domain/text/tags"
import { sql, type Selectable, type Updateable } from "kysely"
import { clock } from "../client.ts"
import type { Database, InstancesTable } from "../schema.ts"
import { isUniqueViolation } from "../snapshots/snapshots.ts"

export type InstanceRow = Selectable<InstancesTable>

export interface NewInstance {
  readonly name: string
  readonly image: string
  readonly hypervisor: Hypervisor
  readonly host: string
  /** The launch, in the form that the host's worker reads. */
  readonly launch: Record<string, unknown>
  /** The VM of someone else that it is to be, in the same way. */
  readonly attached?: Record<string, unknown> | undefined
  readonly vcpus: number
  readonly memoryMib: number
  readonly tags?: Tags | undefined
  readonly snapshotPolicy?: SnapshotPolicy | undefined
  readonly sourceSnapshotId?: string | undefined
}

/** Inserts an instance as `Initializing`. Throws `conflict` when a living instance has the name. */
export async function createInstance(tx: Database, instance: NewInstance): Promise<InstanceRow> {
  try {
    return await tx
      .insertInto("instances")
      .values({
        id: createId(),
        name: instance.name,
        image: instance.image,
        hypervisor: instance.hypervisor,
        host: instance.host,
        state: "Initializing",
        launch: JSON.stringify(instance.launch),
        attached: instance.attached === undefined ? null : JSON.stringify(instance.attached),
        vcpus: instance.vcpus,
        memory_mib: instance.memoryMib,
        tags: JSON.stringify(instance.tags ?? {}),
        snapshot_policy:
          instance.snapshotPolicy === undefined ? null : JSON.stringify(instance.snapshotPolicy),
        source_snapshot_id: instance.sourceSnapshotId ?? null,
      })
      .returningAll()
      .executeTakeFirstOrThrow()
  } catch (error) {
    throw isUniqueViolation(error, "instances_name")
      ? new StillframeError("conflict", `instance name "${instance.name}" is taken; choose another name`)
      : error
  }
}

/** Undefined when there is none, or it was deleted. */
export async function findInstance(db: Database, id: string): Promise<InstanceRow | undefined> {
  if (!idPattern.test(id)) return undefined
  return db
    .selectFrom("instances")
    .selectAll()
    .where("id", "=", id)
    .where("deleted_at", "is", null)
    .executeTakeFirst()
}

/** The row that a snapshot's `source_instance_id` names: it outlives its instance. */
export async function findInstanceEvenDeleted(db: Database, id: string): Promise<InstanceRow> {
  return db.selectFrom("instances").selectAll().where("id", "=", id).executeTakeFirstOrThrow()
}

/** Undefined for an instance that was not forgotten with its host. */
export async function forgottenInstance(db: Database, id: string): Promise<InstanceRow | undefined> {
  return db
    .selectFrom("instances")
    .selectAll()
    .where("id", "=", id)
    .where("forgotten_at", "is not", null)
    .executeTakeFirst()
}

/** Locks the row for the rest of the transaction. */
export async function lockInstance(tx: Database, id: string): Promise<InstanceRow | undefined> {
  return tx
    .selectFrom("instances")
    .selectAll()
    .where("id", "=", id)
    .where("deleted_at", "is", null)
    .forUpdate()
    .executeTakeFirst()
}

export async function instancesOfHost(db: Database, host: string): Promise<InstanceRow[]> {
  return db
    .selectFrom("instances")
    .selectAll()
    .where("host", "=", host)
    .where("deleted_at", "is", null)
    .execute()
}

/**
 * Records the VM that a worker found for an attach, with its process. Undefined if the instance was deleted
 * meanwhile. Throws `conflict` if another living instance is that VM.
 */
export async function completeAttach(
  tx: Database,
  id: string,
  values: {
    pid: number
    vcpus: number
    memoryMib: number
    launch: object
    attached: object
    restorableReason: string | null
  },
): Promise<InstanceRow | undefined> {
  try {
    return await advanceInstance(tx, id, "Running", {
      pid: values.pid,
      vcpus: values.vcpus,
      memory_mib: values.memoryMib,
      launch: JSON.stringify(values.launch),
      attached: JSON.stringify(values.attached),
      restorable_reason: values.restorableReason,
    })
  } catch (error) {
    throw isUniqueViolation(error, "instances_attached")
      ? new StillframeError("conflict", "this VM is attached already; use its instance, or delete that first")
      : error
  }
}

/** Moves an instance on if its state allows it; undefined when it was not this caller's to move. */
export async function advanceInstance(
  tx: Database,
  id: string,
  to: InstanceState,
  values: Omit<Updateable<InstancesTable>, "state"> = {},
): Promise<InstanceRow | undefined> {
  return tx
    .updateTable("instances")
    .set({
      state: to,
      state_error: null,
      ...(to === "Running" && { started_at: clock, exit_code: null, exit_message: null }),
      ...(["Stopped", "Shutdown", "Standby"].includes(to) && { stopped_at: clock, pid: null }),
      ...values,
    })
    .where("id", "=", id)
    .where("deleted_at", "is", null)
    .where("state", "in", instanceStatesBefore(to))
    .returningAll()
    .executeTakeFirst()
}

/** How a VM was found that no operation is at work on. */
export type FoundVm =
  | { readonly state: "Running" }
  /** It stands still, or its hypervisor does not answer. */
  | { readonly state: "Paused" | "Unknown"; readonly reason: string }

/** Records how a VM was found. Undefined where the row says so already, or has moved on. */
export async function recordFound(
  tx: Database,
  { id, generation }: Pick<InstanceRow, "id" | "generation">,
  found: FoundVm,
): Promise<InstanceRow | undefined> {
  const instance = await lockInstance(tx, id)
  if (instance === undefined || instance.generation !== generation || !hasVm(instance.state)) return undefined
  if (found.state === "Running")
    return instance.state === "Running"
      ? undefined
      : advanceInstance(tx, id, "Running", { started_at: instance.started_at })
  const known = instance.state === found.state && instance.state_error === found.reason
  return known ? undefined : advanceInstance(tx, id, found.state, { state_error: found.reason })
}

/** Says why the last thing asked of an instance did not happen; its state is what it was. */
export async function setStateError(
  tx: Database,
  id: string,
  message: string,
): Promise<InstanceRow | undefined> {
  return tx
    .updateTable("instances")
    .set({ state_error: message })
    .where("id", "=", id)
    .where("deleted_at", "is", null)
    .returningAll()
    .executeTakeFirst()
}

/** Says how far the import of a launch's files is, while it is under way. */
export async function setImporting(db: Database, id: string, importing: ImportState): Promise<void> {
  await db
    .updateTable("instances")
    .set({ importing: JSON.stringify(importing) })
    .where("id", "=", id)
    .where("state", "=", "Initializing")
    .execute()
}

/** Remembers what a launch came down to: exact machine, accelerator, real paths. */
export async function setLaunch(tx: Database, id: string, launch: Record<string, unknown>): Promise<void> {
  await tx
    .updateTable("instances")
    .set({ launch: JSON.stringify(launch) })
    .where("id", "=", id)
    .execute()
}

/**
 * Outside, the instance is gone and its name free; the row stays, for its snapshots tell of it. `forgotten`:
 * its host could not be asked to end the VM and to remove the files.
 */
export async function deleteInstance(
  tx: Database,
  id: string,
  { forgotten = false }: { forgotten?: boolean } = {},
): Promise<InstanceRow | undefined> {
  return tx
    .updateTable("instances")
    .set({ deleted_at: clock, ...(forgotten && { forgotten_at: clock }) })
    .where("id", "=", id)
    .where("deleted_at", "is", null)
    .returningAll()
    .executeTakeFirst()
}

/**
 * Those of `ids` that no living instance has and no DELETE has seen to: forgotten with a host, or in no row
 * at all.
 */
export async function orphanedInstances(db: Database, ids: readonly string[]): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select known.id from unnest(${ids}::text[]) as known (id) left join instances on instances.id = known.id
    where instances.id is null or instances.forgotten_at is not null`.execute(db)
  return rows.map(({ id }) => id)
}
