import { inTransaction } from "@stillframe/db/client"
import { appendSnapshotEvent } from "@stillframe/db/events/events"
import { cancelSnapshotWork, createOperation } from "@stillframe/db/operations/operations"
import type { Database } from "@stillframe/db/schema"
import { listSnapshots } from "@stillframe/db/snapshots/list"
import {
  findSnapshot,
  lockSnapshot,
  startDelete,
  type ShownSnapshot,
  type SnapshotRow,
} from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import { idPattern } from "@stillframe/domain/ids"
import { compressQueue } from "@stillframe/domain/queues"
import {
  snapshotKinds,
  snapshotResource,
  snapshotStatuses,
  type SnapshotStatus,
} from "@stillframe/domain/snapshot"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { createSnapshotSchema, listInQuery, tagsSchema } from "../http/input/schemas.ts"
import { pageAnswer, pageQuery, pageRequest } from "../http/page.ts"
import { heldMs } from "../http/prefer.ts"
import { route, type Answer, type Call, type Route } from "../http/route.ts"
import { waitUntil } from "../http/wait.ts"
import { snapshotSchema } from "../openapi/resources.ts"
import { createSnapshot, replaySnapshot } from "./create.ts"

export function snapshotRoutes(deps: ApiDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/instances/:id/snapshots",
      operationId: "createInstanceSnapshot",
      summary: "Take a snapshot",
      answers: { 201: snapshotSchema, 202: snapshotSchema },
      errors: [409, 429, 501, 504],
      scope: "snapshot:write",
      narrowerScope: "snapshot:create",
      body: createSnapshotSchema,
      holds: true,
      handle: (call) => createSnapshot(deps, call),
      replay: (call, made) => replaySnapshot(deps, call, made),
    }),
    route({
      method: "get",
      path: "/snapshots",
      operationId: "listSnapshots",
      summary: "List snapshots",
      answers: { 200: z.array(snapshotSchema) },
      scope: "snapshot:read",
      query: listQuerySchema,
      handle: (call) => list(deps, call),
    }),
    route({
      method: "get",
      path: "/snapshots/:id",
      operationId: "getSnapshot",
      summary: "Get a snapshot",
      answers: { 200: snapshotSchema },
      scope: "snapshot:read",
      holds: true,
      handle: (call) => get(deps, call),
    }),
    route({
      method: "delete",
      path: "/snapshots/:id",
      operationId: "deleteSnapshot",
      summary: "Delete a snapshot",
      answers: { 204: null },
      scope: "snapshot:delete",
      handle: (call) => remove(deps, call),
    }),
  ]
}

/** By its exact id only. Throws `not_found`; one that is being deleted is gone. */
export function requireSnapshot(db: Database, id: string | undefined): Promise<ShownSnapshot>
export function requireSnapshot(
  db: Database,
  id: string | undefined,
  find: typeof lockSnapshot,
): Promise<SnapshotRow>
export async function requireSnapshot(
  db: Database,
  id = "",
  find: (db: Database, id: string) => Promise<SnapshotRow | undefined> = findSnapshot,
): Promise<SnapshotRow> {
  const snapshot = idPattern.test(id) ? await find(db, id) : undefined
  if (snapshot === undefined) throw new StillframeError("not_found", "snapshot not found")
  return snapshot
}

const listQuerySchema = z.object({
  // A literal id: what can't be one matches nothing.
  source_instance_id: z
    .string()
    .min(1)
    .optional()
    .meta({ description: "Only snapshots of the instance with exactly this id." }),
  kind: z.enum(snapshotKinds).optional().meta({ description: "Only snapshots of this kind." }),
  name: z.string().min(1).optional().meta({ description: "Only snapshots with exactly this name." }),
  tags: tagsSchema
    .optional()
    .meta({ description: "Only snapshots that have all of these tags: `tags[team]=backend`." }),
  status: listInQuery(snapshotStatuses)
    .optional()
    .meta({ description: "Only snapshots with one of these statuses. Defaults to all but `failed`." }),
  ...pageQuery,
})

/** Scripts keep the newest few of a list, so a failed one is not in it unless asked for. */
const listedStatuses: readonly SnapshotStatus[] = ["queued", "capturing", "ready"]

async function list(
  { db }: ApiDeps,
  { query, url }: Call<z.output<typeof listQuerySchema>, unknown>,
): Promise<Answer> {
  const { source_instance_id: sourceInstanceId, kind, name, tags } = query
  // Postgres takes no NUL in a text, and no name or id has one.
  if (`${sourceInstanceId} ${name}`.includes("\0")) return { status: 200, body: [] }
  const filter = { sourceInstanceId, kind, name, tags, statuses: query.status ?? listedStatuses }
  return pageAnswer(url, await listSnapshots(db, filter, pageRequest(query)), snapshotResource)
}

async function get(deps: ApiDeps, { params, prefer, signal }: Call<unknown, unknown>): Promise<Answer> {
  let snapshot = await requireSnapshot(deps.db, params["id"])
  const timeoutMs = heldMs(prefer, { seconds: 0 })
  if (timeoutMs > 0 && !isFinal(snapshot)) {
    await waitUntil(
      deps,
      async () => {
        snapshot = await requireSnapshot(deps.db, params["id"])
        return isFinal(snapshot) || undefined
      },
      { timeoutMs, signal },
    )
  }
  return { status: 200, body: snapshotResource(snapshot) }
}

function isFinal({ status, compression_state }: SnapshotRow): boolean {
  return status === "failed" || (status === "ready" && compression_state !== "compressing")
}

/** At once for the caller; the files go when nobody reads them any more. */
async function remove({ db, waker }: ApiDeps, { params }: Call<unknown, unknown>): Promise<Answer> {
  await inTransaction(db, async (tx) => {
    const last = await requireSnapshot(tx, params["id"], lockSnapshot)
    await startDelete(tx, last.id)
    await cancelSnapshotWork(tx, last.id)
    await createOperation(tx, { kind: "delete", queue: compressQueue(last.pool), snapshotId: last.id })
    await appendSnapshotEvent(tx, "snapshot.deleted", last)
  })
  waker.wake("operations")
  waker.wake("events")
  return { status: 204 }
}
