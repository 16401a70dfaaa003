import { expect, test } from "vitest"
import { statuses, testApi, type Reply, type TestApi } from "./test-api.ts"

function create(api: TestApi, url: string): Promise<Reply> {
  return api.ask("POST", "/webhooks", { body: { url } })
}

test("one host gets so many webhooks, on whatever port, also when they are asked for at once", async () => {
  await using api = await testApi({ webhookLimits: { perInstallation: 100, perHost: 2 } })
  const urls = ["https://a.example/", "https://A.example.:8443/b", "https://a.example/c?x=https://b.example"]

  expect(statuses(await Promise.all(urls.map((url) => create(api, url))))).toEqual([201, 201, 409])
  const { headers, body } = await create(api, "https://a.example/d")
  expect(headers.get("x-should-retry")).toBe("false")
  expect(body.message).toBe(
    "there are 2 webhooks to a.example, the most for one host; delete one that is not needed, or raise WEBHOOKS_PER_HOST",
  )
  expect((await create(api, "https://b.example/?https://a.example/")).status).toBe(201)
  const ofAddress = [
    "https://[2606:4700::1111]/",
    "https://[2606:4700::1111]:8443/",
    "https://[2606:4700:0::1111]/",
  ]
  expect(statuses(await Promise.all(ofAddress.map((url) => create(api, url))))).toEqual([201, 201, 409])
})

test("a change leads no webhook to a host that has its number, and leaves one where it is", async () => {
  await using api = await testApi({ webhookLimits: { perInstallation: 100, perHost: 1 } })
  await create(api, "https://a.example/")
  const { body: other } = await create(api, "https://b.example/")
  const change = (body: object): Promise<Reply> => api.ask("PATCH", `/webhooks/${other.id}`, { body })

  expect((await change({ url: "https://a.example/" })).status).toBe(409)
  expect((await change({ url: "https://b.example/other" })).status).toBe(200)
  expect((await change({ description: "mine" })).status).toBe(200)
})

test("an installation has so many webhooks, and one that is deleted makes room", async () => {
  await using api = await testApi({ webhookLimits: { perInstallation: 2, perHost: 100 } })
  const { body: first } = await create(api, "https://a.example/")
  await create(api, "https://b.example/")

  const { status, body } = await create(api, "https://c.example/")
  expect([status, body.message]).toEqual([
    409,
    "there are 2 webhooks, the most allowed; delete one that is not needed, or raise WEBHOOKS_MAX",
  ])
  await api.ask("DELETE", `/webhooks/${first.id}`)
  expect((await create(api, "https://c.example/")).status).toBe(201)
})
