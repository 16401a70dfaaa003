import { expect, test } from "vitest"
import { testApi } from "./test-api.ts"

const url = "https://receiver.example/hook"

test("a change touches what it names, and nothing else", async () => {
  await using api = await testApi()
  const settings = {
    url,
    description: "ours",
    event_types: ["snapshot.completed"],
    tags: { team: "a" },
    enabled: true,
  }
  const { body } = await api.ask("POST", "/webhooks", { body: settings })
  const { secret: _, ...made } = body
  const change = async (changes: object) =>
    (await api.ask("PATCH", `/webhooks/${made.id}`, { body: changes })).body

  expect(await change({})).toEqual(made)
  expect(await change({ url: "https://other.example" })).toEqual({ ...made, url: "https://other.example/" })
  expect(await change({ url, event_types: ["instance.*"], enabled: false })).toEqual({
    ...made,
    event_types: ["instance.*"],
    enabled: false,
  })
  const { description: _description, tags: _tags, ...bare } = made
  expect(await change({ description: null, tags: {}, event_types: [], enabled: true })).toEqual({
    ...bare,
    event_types: [],
  })
  expect((await api.ask("GET", `/webhooks/${made.id}`)).body).toEqual({ ...bare, event_types: [] })
})

test("a token that may write webhooks but not read them sees only the origins of their URLs", async () => {
  await using api = await testApi()
  const secret = `${url}/T000/secret?key=1`
  const { body: made } = await api.ask("POST", "/webhooks", { body: { url: secret } })
  const claims = { permissions: ["webhook:write"], sub: "writer" }
  const answers = [
    await api.ask("PATCH", `/webhooks/${made.id}`, { claims, body: {} }),
    await api.ask("POST", `/webhooks/${made.id}/rotate-secret`, {
      claims,
      headers: { "idempotency-key": "a" },
    }),
    await api.ask("POST", `/webhooks/${made.id}/rotate-secret`, {
      claims,
      headers: { "idempotency-key": "a" },
    }),
  ]

  expect(answers.map(({ status, body }) => [status, body.url])).toEqual(
    answers.map(() => [200, "https://receiver.example"]),
  )
  expect((await api.ask("GET", `/webhooks/${made.id}`)).body.url).toBe(secret)
})

test("enabling a webhook forgets why it was disabled; one that is enabled goes on failing", async () => {
  await using api = await testApi()
  const { body: made } = await api.ask("POST", "/webhooks", { body: { url } })
  const failing_since = "2026-01-01T00:00:00.000Z"
  const enable = () => api.ask("PATCH", `/webhooks/${made.id}`, { body: { enabled: true } })
  await api.db
    .updateTable("webhooks")
    .set({ failing_since: new Date(failing_since) })
    .execute()

  expect((await enable()).body).toMatchObject({ enabled: true, failing_since })
  await api.db.updateTable("webhooks").set({ enabled: false, disabled_reason: "failing" }).execute()
  expect((await api.ask("GET", `/webhooks/${made.id}`)).body).toMatchObject({ disabled_reason: "failing" })
  const { secret: _, ...shown } = made
  expect((await enable()).body).toEqual(shown)
})

test("another URL is not to blame for the failures of the one before", async () => {
  await using api = await testApi()
  const { body: made } = await api.ask("POST", "/webhooks", { body: { url } })
  const failing_since = "2026-01-01T00:00:00.000Z"
  await api.db
    .updateTable("webhooks")
    .set({ failing_since: new Date(failing_since) })
    .execute()
  const change = async (body: object) => (await api.ask("PATCH", `/webhooks/${made.id}`, { body })).body

  for (const same of [{}, { url }, { enabled: false }, { description: "ours", event_types: ["snapshot.*"] }])
    expect(await change(same)).toMatchObject({ failing_since })
  expect(await change({ url: "https://other.example/" })).not.toHaveProperty("failing_since")
})

test("a change that can't be right is refused, and changes nothing", async () => {
  await using api = await testApi()
  const { body: made } = await api.ask("POST", "/webhooks", { body: { url } })
  const { secret: _, ...shown } = made

  for (const body of [
    { url: null },
    { url: "ftp://a/" },
    { url: "http://user:word@a/" },
    { enabled: null },
    { event_types: ["snapshot.unknown"] },
    { instance_ids: ["x"] },
    { description: "a\0" },
    { tags: { "#": "" } },
    [],
  ]) {
    const reply = await api.ask("PATCH", `/webhooks/${made.id}`, { body })
    expect([reply.status, reply.body.code], `for ${JSON.stringify(body)}`).toEqual([400, "Bad Request"])
  }
  for (const id of ["x", "%00", `a${"0".repeat(23)}`]) {
    const reply = await api.ask("PATCH", `/webhooks/${id}`, { body: { enabled: false } })
    expect([reply.status, reply.body.message]).toEqual([404, "webhook not found"])
  }
  expect((await api.ask("GET", `/webhooks/${made.id}`)).body).toEqual(shown)
})
