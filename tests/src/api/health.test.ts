import { expect, test } from "vitest"
import { testApi } from "./test-api.ts"

test("health and readiness are open, and readiness lists the hosts that are up", async () => {
  await using api = await testApi()
  await api.host("h1")

  expect((await api.ask("GET", "/health", { claims: null })).body).toEqual({ status: "ok" })
  expect((await api.ask("GET", "/ready", { claims: null })).body).toEqual({
    status: "ok",
    hosts: [{ name: "h1", hypervisors: { qemu: "7.2.22" } }],
  })
})

test("a plain X-Request-Id comes back, any other is replaced, and every answer has one", async () => {
  await using api = await testApi()
  const id = async (given?: string): Promise<string | null> =>
    (
      await api.ask("GET", "/nope", given === undefined ? {} : { headers: { "x-request-id": given } })
    ).headers.get("x-request-id")

  expect(await id("my-request.1")).toBe("my-request.1")
  expect(await id("with space")).toMatch(/^[a-z0-9]{24}$/)
  expect(await id("x".repeat(129))).toMatch(/^[a-z0-9]{24}$/)
  expect(await id()).toMatch(/^[a-z0-9]{24}$/)
})
