import { expect, test } from "vitest"
import { testApi } from "./test-api.ts"

test("a URL that nothing would be sent to is refused, with the setting that would allow it", async () => {
  await using api = await testApi({ webhookAllowedCidrs: [] })
  const { body: made } = await api.ask("POST", "/webhooks", { body: { url: "https://receiver.example/" } })

  for (const url of [
    "https://127.0.0.1:3000/hook",
    "https://[::1]/",
    "https://localhost/",
    "https://169.254.169.254/",
    "https://[::ffff:10.0.0.1]/",
    "http://10.0.0.1/",
    "http://receiver.example/",
  ]) {
    for (const reply of [
      await api.ask("POST", "/webhooks", { body: { url } }),
      await api.ask("PATCH", `/webhooks/${made.id}`, { body: { url, enabled: false } }),
    ])
      expect([reply.status, reply.body], `for ${url}`).toEqual([
        400,
        { code: "invalid_request", message: expect.stringContaining("WEBHOOK_ALLOWED_CIDRS") },
      ])
  }
  const { secret: _, ...shown } = made
  expect((await api.ask("GET", "/webhooks")).body).toEqual([shown])
})

test("inside the ranges of the setting, private addresses and http:// are taken", async () => {
  await using api = await testApi({ webhookAllowedCidrs: ["127.0.0.0/8", "10.0.0.0/8"] })
  const { body: made } = await api.ask("POST", "/webhooks", { body: { url: "https://receiver.example/" } })
  const statuses = async (url: string) => [
    (await api.ask("POST", "/webhooks", { body: { url } })).status,
    (await api.ask("PATCH", `/webhooks/${made.id}`, { body: { url } })).status,
  ]

  for (const url of [
    "http://127.0.0.1:3000/",
    "http://localhost:3000/",
    "https://10.1.2.3/",
    "http://inside/",
  ])
    expect([url, ...(await statuses(url))]).toEqual([url, 201, 200])
  for (const url of ["http://192.168.0.1/", "https://[::1]/", "http://8.8.8.8/", "http://10.1.2.3:22/"])
    expect([url, ...(await statuses(url))]).toEqual([url, 400, 400])
})

test("a URL of the API's own port, or of a public name without TLS, is refused: nothing would be sent there", async () => {
  await using api = await testApi({
    resolve: async (name) => (name === "public.example" ? ["8.8.8.8"] : ["127.0.0.1"]),
  })
  const { port } = new URL(api.api.url)
  const { body: made } = await api.ask("POST", "/webhooks", { body: { url: "https://receiver.example/" } })

  for (const [url, reason] of [
    [`http://127.0.0.1:${port}/`, "that Stillframe itself doesn't use"],
    [`http://localhost:${port}/webhooks`, "that Stillframe itself doesn't use"],
    [`http://inside.example:${port}/`, "that Stillframe itself doesn't use"],
    ["http://public.example/hook", "use an https:// URL"],
  ] as const)
    for (const reply of [
      await api.ask("POST", "/webhooks", { body: { url } }),
      await api.ask("PATCH", `/webhooks/${made.id}`, { body: { url } }),
    ])
      expect([url, reply.status, reply.body]).toEqual([
        url,
        400,
        { code: "invalid_request", message: expect.stringContaining(reason) },
      ])
  expect((await api.ask("POST", "/webhooks", { body: { url: "http://inside.example:9/" } })).status).toBe(400)
  expect((await api.ask("POST", "/webhooks", { body: { url: "http://inside.example:9000/" } })).status).toBe(
    201,
  )
})
