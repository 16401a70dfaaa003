import type { ClaimedOperation } from "@stillframe/db/operations/operations"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { testApi, type TestApi } from "./test-api.ts"

let api: TestApi
beforeAll(async () => {
  api = await testApi()
})
afterAll(() => api[Symbol.asyncDispose]())

let count = 0
async function snapshot(body: object, { captured = true } = {}): Promise<SnapshotResource> {
  count += 1
  const state = "kind" in body && body.kind === "Stopped" ? "Stopped" : "Running"
  const instance = await api.instance(`vm-${count}`, { state })
  const { body: requested } = await api.ask("POST", `/instances/${instance.id}/snapshots`, {
    body: { kind: "Standby", ...body },
  })
  if (captured) await asWorker(api).captured(await take(requested.id), { compress: "compression" in body })
  return requested
}

/** The next piece of work of a snapshot; that of others is left as it is. */
async function take(id: string): Promise<ClaimedOperation> {
  const worker = asWorker(api)
  for (;;) {
    const operation = await worker.take()
    if (operation.snapshotId === id) return operation
  }
}

const verbs = ["verify", "compress"] as const

describe.each(verbs)("POST /snapshots/{id}/%s", (verb) => {
  test("of a snapshot that is not captured yet is a conflict that says when", async () => {
    const { id } = await snapshot({}, { captured: false })

    const { status, body } = await api.ask("POST", `/snapshots/${id}/${verb}`)

    expect([status, body.code]).toEqual([409, "conflict"])
    expect(body.message).toContain("ready")
  })

  test("of a snapshot that nobody knows is 404, without the scope 403", async () => {
    const { id } = await snapshot({})
    const claims = { permissions: ["snapshot:read"] }

    expect((await api.ask("POST", `/snapshots/a1b2c3d4e5f6a1b2c3d4e5f6/${verb}`)).status).toBe(404)
    expect((await api.ask("POST", `/snapshots/${id}/${verb}`, { claims })).status).toBe(403)
  })

  test("is answered with 202 at once, and sent again with the same key as the same work", async () => {
    const { id } = await snapshot({})
    const headers = { "idempotency-key": `${verb}-${id}` }

    const first = await api.ask("POST", `/snapshots/${id}/${verb}`, { headers })
    const again = await api.ask("POST", `/snapshots/${id}/${verb}`, { headers })

    expect([first.status, again.status]).toEqual([202, 202])
    expect(again.headers.get("idempotent-replayed")).toBe("true")
    expect(await operations(id, verb)).toHaveLength(1)
  })
})

test("a second request to verify joins the first, as long as that waits or runs", async () => {
  const { id } = await snapshot({})

  await Promise.all([1, 2, 3].map(() => api.ask("POST", `/snapshots/${id}/verify`)))

  expect(await operations(id, "verify")).toHaveLength(1)
})

test("a verification that could not be done is answered with the reason", async () => {
  const { id } = await snapshot({})
  const asked = api.ask("POST", `/snapshots/${id}/verify`, { headers: { prefer: "wait=50" } })
  const error = { code: "storage_failed", message: "the disk can't be read" } as const
  await asWorker(api).failed(await take(id), error)

  const { status, body, headers } = await asked

  expect([status, body.message]).toEqual([500, error.message])
  expect(headers.get("x-should-retry")).toBe("false")
})

describe("what can't be compressed", () => {
  test.each([
    ["a level beyond lz4's", { algorithm: "lz4", level: 10 }, "invalid_snapshot_compression"],
    ["a level below zstd's", { level: 0 }, "invalid_snapshot_compression"],
    ["an algorithm of nobody's", { algorithm: "gzip" }, "Bad Request"],
    ["a compression that is off", { enabled: false }, "Bad Request"],
  ])("%s is refused", async (_what, body, code) => {
    const { id } = await snapshot({})

    const reply = await api.ask("POST", `/snapshots/${id}/compress`, { body })

    expect([reply.status, reply.body.code]).toEqual([400, code])
    expect((await api.ask("GET", `/snapshots/${id}`)).body.compression_state).toBe("none")
  })

  test("a snapshot without memory is refused in the contract's words", async () => {
    const { id } = await snapshot({ kind: "Stopped" })

    const { status, body } = await api.ask("POST", `/snapshots/${id}/compress`)

    expect([status, body.code]).toEqual([400, "invalid_request"])
    expect(body.message).toBe("compression is only supported for standby snapshots")
  })

  test("one that is being compressed is a conflict", async () => {
    const { id } = await snapshot({ compression: { enabled: true } })

    const { status, body } = await api.ask("POST", `/snapshots/${id}/compress`, { body: { level: 3 } })

    expect([status, body.code]).toEqual([409, "conflict"])
  })
})

function operations(id: string, kind: (typeof verbs)[number]): Promise<object[]> {
  return api.db
    .selectFrom("operations")
    .select("id")
    .where("snapshot_id", "=", id)
    .where("kind", "=", kind)
    .execute()
}
