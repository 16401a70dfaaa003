import { numberEvents } from "@stillframe/db/events/events"
import { openSecret } from "@stillframe/runtime/secrets"
import { expect, test } from "vitest"
import { secretsKey, testApi, type TestApi } from "./test-api.ts"

const url = "https://receiver.example/hook"

test("a webhook's secret is shown once and stored encrypted", async () => {
  await using api = await testApi()
  const filters = {
    event_types: ["snapshot.completed", "instance.*"],
    tags: { team: "a" },
    description: "ours",
  }

  const { status, body, headers } = await api.ask("POST", "/webhooks", { body: { url, ...filters } })

  expect(status).toBe(201)
  expect(headers.get("location")).toBe(`/webhooks/${body.id}`)
  expect(body).toEqual({
    id: expect.stringMatching(/^[a-z][a-z0-9]{23}$/),
    url,
    ...filters,
    instance_ids: [],
    enabled: true,
    previous_secret_until: null,
    created_at: expect.any(String),
    secret: expect.stringMatching(/^whsec_[A-Za-z0-9+/]{43}=$/),
  })
  const { secret, ...shown } = body
  expect((await api.ask("GET", `/webhooks/${body.id}`)).body).toEqual(shown)
  expect((await api.ask("GET", "/webhooks")).body).toEqual([shown])
  const row = await api.db.selectFrom("webhooks").select("secret").executeTakeFirstOrThrow()
  expect(row.secret.includes(secret)).toBe(false)
  expect(openSecret(secretsKey, row.secret)).toBe(secret)
})

test("a webhook that is deleted is gone, and unknown ones are not found", async () => {
  await using api = await testApi()
  const { body } = await api.ask("POST", "/webhooks", { body: { url } })

  expect((await api.ask("DELETE", `/webhooks/${body.id}`)).status).toBe(204)
  for (const [method, id] of [
    ["DELETE", body.id],
    ["GET", body.id],
    ["GET", "x"],
    ["DELETE", "%00"],
  ]) {
    const reply = await api.ask(method, `/webhooks/${id}`)
    expect([reply.status, reply.body]).toEqual([404, { code: "not_found", message: "webhook not found" }])
  }
  expect((await api.ask("GET", "/webhooks")).body).toEqual([])
})

test("a webhook that can't be right is refused", async () => {
  await using api = await testApi()
  const urls = [
    "",
    "x",
    "ftp://a/",
    "javascript:alert(1)",
    "http://user:word@a/",
    "http://",
    `http://a/${"x".repeat(2048)}`,
  ]

  for (const body of [
    {},
    ...urls.map((wrong) => ({ url: wrong })),
    { url, event_types: ["snapshot.unknown"] },
    { url, event_types: "snapshot.completed" },
    { url, instance_ids: ["x"] },
    { url, description: "a\0" },
    { url, tags: { "#": "" } },
    { url, enabled: "yes" },
  ]) {
    const reply = await api.ask("POST", "/webhooks", { body })
    expect([reply.status, reply.body.code], `for ${JSON.stringify(body).slice(0, 100)}`).toEqual([
      400,
      "Bad Request",
    ])
  }
})

async function feed(api: TestApi, query = ""): Promise<{ type: string; sequence: number }[]> {
  const { status, body } = await api.ask("GET", `/events${query}`)
  expect(status, `for ${query}`).toBe(200)
  return body
}

test("the feed shows numbered events, oldest first, by type, snapshot, instance and place", async () => {
  await using api = await testApi()
  const { id: vm } = await api.instance("vm")
  await api.instance("other")
  const snapshot = (await api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby" } })).body
  await api.ask("POST", "/instances/other/snapshots", { body: { kind: "Standby" } })
  await api.ask("DELETE", `/snapshots/${snapshot.id}`)
  expect(await feed(api)).toEqual([])
  await numberEvents(api.db)

  const all = await feed(api)

  expect(all.map(({ sequence, type }) => [sequence, type])).toEqual([
    [1, "snapshot.created"],
    [2, "snapshot.created"],
    [3, "snapshot.deleted"],
  ])
  expect(all[0]).toEqual({
    id: expect.stringMatching(/^[a-z][a-z0-9]{23}$/),
    sequence: 1,
    type: "snapshot.created",
    occurred_at: expect.any(String),
    subject: { kind: "snapshot", id: snapshot.id },
    data: snapshot,
  })
  expect(await feed(api, "?after=1&limit=1")).toEqual([all[1]])
  expect(await feed(api, "?types=snapshot.deleted,instance.created")).toEqual([all[2]])
  expect(await feed(api, "?types=snapshot.*")).toEqual(all)
  expect(await feed(api, "?types=instance.*")).toEqual([])
  expect(await feed(api, `?snapshot_id=${snapshot.id}`)).toEqual([all[0], all[2]])
  expect(await feed(api, `?instance_id=${vm}&after=1`)).toEqual([all[2]])
  expect(await feed(api, "?after=3")).toEqual([])
  for (const query of [
    "?after=-1",
    "?after=x",
    "?limit=0",
    "?limit=1001",
    "?types=x",
    "?types=snapshot",
    "?snapshot_id=x",
    "?after=",
  ])
    expect((await api.ask("GET", `/events${query}`)).status, `for ${query}`).toBe(400)
})
