import { sql } from "kysely"
import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { testApi, type Reply, type TestApi } from "./test-api.ts"

/** As the official client sends a create: the try's number, and no key. */
function create(
  api: TestApi,
  retry: number,
  { body = {}, signal }: { body?: object; signal?: AbortSignal } = {},
): Promise<Reply> {
  return api.ask("POST", "/instances/vm/snapshots", {
    body: { kind: "Standby", ...body },
    headers: { "x-stainless-retry-count": String(retry) },
    ...(signal !== undefined && { signal }),
  })
}

async function answered(api: TestApi, id: string): Promise<void> {
  await expect
    .poll(() => api.db.selectFrom("snapshots").select("answered_at").where("id", "=", id).executeTakeFirst())
    .toMatchObject({ answered_at: expect.any(Date) })
}

test("a retry is answered with the snapshot that is still to be captured, its name included", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const first = await create(api, 0, { body: { name: "a" } })
  await answered(api, first.body.id)
  const retry = await create(api, 1, { body: { name: "a" } })

  expect([retry.status, retry.body.id]).toEqual([202, first.body.id])
})

test("once it was captured and answered, the same request is a new point in time", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)

  const first = await create(api, 0)
  await answered(api, first.body.id)
  await worker.captured(await worker.take())
  const retry = await create(api, 1)

  expect(retry.body.id).not.toBe(first.body.id)
})

test("one whose answer nobody is known to have got is answered again", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)
  const first = await create(api, 0)
  await answered(api, first.body.id)
  await worker.captured(await worker.take())
  await api.db.updateTable("snapshots").set({ answered_at: null }).execute()

  const retry = await create(api, 1)
  expect([retry.status, retry.body.id]).toEqual([201, first.body.id])
})

test("another body, another caller, an older create and the same count are no retries", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const first = await create(api, 1)

  const other = await create(api, 2, { body: { tags: { a: "b" } } })
  const same = await create(api, 1)
  const caller = await api.ask("POST", "/instances/vm/snapshots", {
    body: { kind: "Standby" },
    headers: { "x-stainless-retry-count": "2" },
    claims: { sub: "somebody else" },
  })
  await api.db
    .updateTable("snapshots")
    .set({ created_at: new Date(Date.now() - 121_000) })
    .execute()
  const late = await create(api, 2)

  const ids = [first, other, same, caller, late].map(({ body }) => body.id)
  expect(new Set(ids).size).toBe(5)
})

test("a retry beside the first try: exactly one snapshot", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const locked = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  // The first try's statement waits for a lock that the test holds; its client gives up and asks again.
  const holding = api.db.transaction().execute(async (tx) => {
    await tx
      .insertInto("snapshots")
      .values(await heldName(api))
      .execute()
    locked.resolve()
    await release.promise
    throw new Error("rolled back")
  })
  await locked.promise
  const first = create(api, 0, { body: { name: "held" } })
  await expect.poll(() => waitingForLocks(api)).toBe(1)
  const second = create(api, 1, { body: { name: "held" } })
  const third = create(api, 2, { body: { name: "held" } })
  await expect.poll(() => waitingForLocks(api)).toBe(3)
  release.resolve()
  await expect(holding).rejects.toThrow("rolled back")

  const replies = await Promise.all([first, second, third])
  expect(replies.map(({ status }) => status)).toEqual([202, 202, 202])
  expect(new Set(replies.map(({ body }) => body.id)).size).toBe(1)
})

async function heldName(api: TestApi): Promise<{
  id: string
  kind: "Standby"
  status: "queued"
  name: string
  source_instance_id: string
  source_instance_name: string
  source_hypervisor: "qemu"
  host: string
  pool: string
  tags: string
}> {
  const { id } = await api.db.selectFrom("instances").select("id").executeTakeFirstOrThrow()
  return {
    id: "held",
    kind: "Standby",
    status: "queued",
    name: "held",
    source_instance_id: id,
    source_instance_name: "vm",
    source_hypervisor: "qemu",
    host: "h1",
    pool: "p",
    tags: "{}",
  }
}

async function waitingForLocks(api: TestApi): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    select count(*)::int as n from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock'`.execute(api.db)
  return rows[0]?.n ?? 0
}
