import { deleteInstance } from "@stillframe/db/instances/instances"
import { afterAll, beforeAll, expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { happen, testApi, type Reply, type TestApi } from "./test-api.ts"

/** How each route that makes something answers a request that is sent again with its `Idempotency-Key`. */
interface Replay {
  readonly path: () => string | Promise<string>
  readonly body?: object
  /** Changes the resource between the first answer and the second. */
  readonly change: (first: Reply) => Promise<unknown>
  readonly now: object
  /** Makes the resource go; the third answer is then the first one's body. */
  readonly remove?: (first: Reply) => Promise<unknown>
}

let api: TestApi
let worker: ReturnType<typeof asWorker>
beforeAll(async () => {
  api = await testApi()
  worker = asWorker(api)
  await api.host("h1")
})
afterAll(() => api[Symbol.asyncDispose]())

const patch = (first: Reply) =>
  api.ask("PATCH", `/webhooks/${first.body.id}`, { body: { description: "changed" } })
const goneInstance = (first: Reply) => deleteInstance(api.db, first.body.id)
const gone = (table: "snapshots" | "webhooks") => (first: Reply) =>
  api.db.deleteFrom(table).where("id", "=", first.body.id).execute()
const set = (table: "instances" | "snapshots", values: object) => (first: Reply) =>
  api.db.updateTable(table).set(values).where("id", "=", first.body.id).execute()

async function finish(
  state: "done" | "failed",
  values: object,
  table: "instances" | "snapshots",
  first: Reply,
) {
  await set(table, values)(first)
  await api.db.updateTable("operations").set({ state, finished_at: new Date() }).execute()
}

async function instance(name: string, state: "Running" | "Stopped" | "Standby"): Promise<string> {
  return (await api.instance(name, { state })).id
}

async function captured(name: string): Promise<string> {
  const source = await instance(name, "Running")
  const { body } = await api.ask("POST", `/instances/${source}/snapshots`, { body: { kind: "Standby" } })
  await worker.captured(await worker.take())
  return body.id
}

async function webhook(): Promise<string> {
  return (await api.ask("POST", "/webhooks", { body: { url: "https://example.com/" } })).body.id
}

const act = (verb: string, before: "Running" | "Stopped" | "Standby", after: string): Replay => ({
  path: async () => `/instances/${await instance(`to-${verb}`, before)}/${verb}`,
  change: (first) => finish("done", { state: after }, "instances", first),
  now: { status: 200, body: { state: after } },
  remove: goneInstance,
})

const facts = (verb: string, body: object): Replay => ({
  path: async () => `/webhooks/${await webhook()}/${verb}`,
  body,
  change: async () => {},
  now: { status: 202 },
})

/** By `operationId`. */
const replays: Readonly<Record<string, Replay>> = {
  createInstance: {
    path: () => "/instances",
    body: { name: "made", image: "demo" },
    change: (first) => finish("done", { state: "Running" }, "instances", first),
    now: { status: 201, body: { state: "Running" } },
    remove: goneInstance,
  },
  stopInstance: act("stop", "Running", "Stopped"),
  startInstance: act("start", "Stopped", "Running"),
  standbyInstance: act("standby", "Running", "Standby"),
  restoreInstance: act("restore", "Standby", "Running"),
  createInstanceSnapshot: {
    path: async () => `/instances/${await instance("source", "Running")}/snapshots`,
    body: { kind: "Standby" },
    change: async () => worker.captured(await worker.take()),
    now: { status: 201, body: { status: "ready" } },
    remove: gone("snapshots"),
  },
  forkSnapshot: {
    path: async () => `/snapshots/${await captured("to-fork")}/fork`,
    body: { name: "fork" },
    change: (first) => finish("done", { state: "Running" }, "instances", first),
    now: { status: 201, body: { state: "Running" } },
    remove: goneInstance,
  },
  restoreInstanceSnapshot: {
    async path() {
      const snapshot = await captured("to-put-back")
      await api.db
        .updateTable("instances")
        .set({ state: "Stopped" })
        .where("name", "=", "to-put-back")
        .execute()
      return `/instances/to-put-back/snapshots/${snapshot}/restore`
    },
    body: {},
    change: (first) => finish("done", { state: "Running" }, "instances", first),
    now: { status: 200, body: { state: "Running" } },
    remove: goneInstance,
  },
  verifySnapshot: {
    path: async () => `/snapshots/${await captured("to-verify")}/verify`,
    change: (first) => finish("done", { verified_at: new Date(0) }, "snapshots", first),
    now: { status: 200, body: { verified_at: "1970-01-01T00:00:00.000Z" } },
    remove: gone("snapshots"),
  },
  compressSnapshot: {
    path: async () => `/snapshots/${await captured("to-compress")}/compress`,
    body: {},
    change: (first) => finish("done", { compression_state: "compressed" }, "snapshots", first),
    now: { status: 200, body: { compression_state: "compressed" } },
    remove: gone("snapshots"),
  },
  createWebhook: {
    path: () => "/webhooks",
    body: { url: "https://example.com/" },
    change: patch,
    now: { status: 201, body: { description: "changed", secret: expect.stringMatching(/^whsec_/) } },
    remove: gone("webhooks"),
  },
  rotateWebhookSecret: {
    path: async () => `/webhooks/${await webhook()}/rotate-secret`,
    change: patch,
    now: { status: 200, body: { description: "changed", secret: expect.stringMatching(/^whsec_/) } },
    remove: gone("webhooks"),
  },
  resendDelivery: {
    async path() {
      const id = await webhook()
      await happen(api, 1)
      return `/deliveries/${(await api.ask("GET", `/webhooks/${id}/deliveries`)).body[0].id}/resend`
    },
    change: (first) =>
      api.db
        .updateTable("deliveries")
        .set({ state: "delivered", ended_at: new Date() })
        .where("id", "=", first.body.id)
        .execute(),
    now: { status: 202, body: { state: "delivered" } },
    remove: (first) => api.db.deleteFrom("deliveries").where("id", "=", first.body.id).execute(),
  },
  // Their answers are facts, not resources: a replay repeats them.
  testWebhook: facts("test", {}),
  recoverWebhook: facts("recover", { since: "2026-01-01T00:00:00Z" }),
  replayWebhook: facts("replay", { from_sequence: 1, to_sequence: 1 }),
}

test("every route that takes an Idempotency-Key has its row in the table", async () => {
  const { body } = await api.ask("GET", "/spec.json", { claims: null })
  const keyed = Object.values<Record<string, { operationId: string; parameters: { $ref?: string }[] }>>(
    body.paths,
  )
    .flatMap((methods) => Object.values(methods))
    .filter(({ parameters }) => parameters.some(({ $ref }) => $ref?.endsWith("/IdempotencyKey") === true))
    .map(({ operationId }) => operationId)
  expect(Object.keys(replays).toSorted()).toEqual(keyed.toSorted())
})

test.each(Object.entries(replays))(
  "a %s that is repeated shows the resource as it is now, and what was recorded when that is gone",
  async (operation, { path, body, change, now, remove }) => {
    const url = await path()
    const headers = { "idempotency-key": operation, prefer: "respond-async" }
    const ask = () => api.ask("POST", url, { headers, ...(body !== undefined && { body }) })

    const first = await ask()
    await change(first)
    const second = await ask()

    expect(first.status).toBeLessThan(300)
    expect(second.headers.get("idempotent-replayed")).toBe("true")
    expect({ status: second.status, body: second.body }).toMatchObject(now)
    if (remove === undefined) return
    await remove(first)
    const third = await ask()
    expect([third.status < 300, third.body]).toEqual([true, first.body])
  },
)

test("a launch that has failed is not shown as under way, also to who may not wait", async () => {
  const ask = () =>
    api.ask("POST", "/instances", {
      body: { name: "fails", image: "demo" },
      headers: { "idempotency-key": "fails", prefer: "respond-async" },
    })
  const first = await ask()
  const { id } = await api.db
    .updateTable("operations")
    .set({ state: "failed", error_code: "invalid_request", error_message: "no such machine" })
    .where("instance_id", "=", first.body.id)
    .returning("id")
    .executeTakeFirstOrThrow()
  await goneInstance(first)

  const { status, body } = await ask()

  expect(id).toBeDefined()
  expect([first.status, status, body]).toEqual([
    202,
    400,
    { code: "invalid_request", message: "no such machine" },
  ])
})

test("a webhook's secret that has been rotated is replayed as the one that signs now", async () => {
  const ask = () =>
    api.ask("POST", "/webhooks", {
      body: { url: "https://example.com/" },
      headers: { "idempotency-key": "rotated" },
    })
  const { body: made } = await ask()
  const { body: rotated } = await api.ask("POST", `/webhooks/${made.id}/rotate-secret`, { body: {} })

  expect(rotated.secret).not.toBe(made.secret)
  expect((await ask()).body.secret).toBe(rotated.secret)
})
