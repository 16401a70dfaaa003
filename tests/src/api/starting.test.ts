import { expect, test } from "vitest"
import { testApi } from "./test-api.ts"

test("an API whose workers are still starting says so, and serves once they are up", async () => {
  const up = Promise.withResolvers<void>()
  await using api = await testApi({ ready: up.promise })

  for (const [method, path] of [
    ["GET", "/instances"],
    ["POST", "/instances"],
    ["GET", "/capabilities"],
  ] as const) {
    const { status, body, headers } = await api.ask(method, path, { claims: null })
    expect([status, body.code]).toEqual([503, "unavailable"])
    expect(body.message).toContain("still starting")
    expect([headers.get("x-should-retry"), headers.get("retry-after-ms")]).toEqual(["true", "1000"])
  }
  expect((await api.ask("GET", "/health", { claims: null })).status).toBe(200)
  const ready = await api.ask("GET", "/ready", { claims: null })
  expect([ready.status, ready.body.status]).toEqual([503, "unavailable"])
  expect(ready.body.problems).toMatchObject([
    { where: "api", message: expect.stringContaining("still starting") },
  ])

  up.resolve()
  await api.host("h1")

  expect((await api.ask("GET", "/instances")).body).toEqual([])
  expect((await api.ask("GET", "/ready")).body.status).toBe("ok")
})
