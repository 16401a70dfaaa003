import { compressionHeartbeat } from "@stillframe/db/hosts/compression-workers"
import { heartbeat } from "@stillframe/db/hosts/register"
import { expect, test } from "vitest"
import { hostQemu, testApi, type Reply } from "./test-api.ts"

test("health and readiness are open, and readiness lists the hosts and the compression workers that are up", async () => {
  await using api = await testApi()
  await api.host("h1")
  const codecs = { zstd: "zstd-napi (zstd 1.5.7)", lz4: "lz4-napi" }
  await compressionHeartbeat(api.db, { name: "h2", pool: "p", codecs })
  await compressionHeartbeat(api.db, { name: "gone", pool: "p", codecs })
  await api.db
    .updateTable("compression_workers")
    .set({ heartbeat_at: new Date(0) })
    .where("name", "=", "gone")
    .execute()

  expect((await api.ask("GET", "/health", { claims: null })).body).toEqual({ status: "ok" })
  expect((await api.ask("GET", "/ready", { claims: null })).body).toEqual({
    status: "ok",
    problems: [],
    hosts: [{ name: "h1", hypervisors: { qemu: "7.2.22" } }],
    compression_workers: [{ name: "h2", pool: "p", codecs }],
  })
})

test("readiness lists what hosts and pools can't do at present, and is 503 when no host has its storage", async () => {
  await using api = await testApi()
  const codecs = { zstd: "zstd-napi (zstd 1.5.7)", lz4: "lz4-napi" }
  const problem = { code: "storage_unavailable", message: "the pool is not mounted" } as const
  const host = { hostId: "h", bootId: "b", pool: "p", hypervisors: {} }
  const ready = (): Promise<Reply> => api.ask("GET", "/ready", { claims: null })

  expect((await ready()).body).toMatchObject({ status: "degraded", problems: [{ where: "host" }] })
  await heartbeat(api.db, { ...host, name: "h1" })
  await compressionHeartbeat(api.db, { name: "h1", pool: "p", codecs, problems: [problem] })
  const degraded = await ready()
  expect([degraded.status, degraded.body.status]).toEqual([200, "degraded"])
  expect(degraded.body.problems).toEqual([{ where: "pool p", ...problem }])

  await heartbeat(api.db, { ...host, name: "h1", problems: [problem] })
  const unavailable = await ready()
  expect([unavailable.status, unavailable.body.status]).toEqual([503, "unavailable"])
  expect(unavailable.headers.get("x-should-retry")).toBe("true")
  expect(unavailable.body).toMatchObject({ code: "unavailable", message: problem.message })
  expect(unavailable.body.problems).toContainEqual({ where: "host h1", ...problem })

  await heartbeat(api.db, { ...host, name: "h1" })
  await compressionHeartbeat(api.db, { name: "h1", pool: "p", codecs })
  expect((await ready()).body).toMatchObject({ status: "ok", problems: [] })
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

test("capabilities say what each host that is up can do, to those who may see instances", async () => {
  await using api = await testApi()
  await api.host("h1")
  await api.host("gone")
  await api.db
    .updateTable("hosts")
    .set({ heartbeat_at: new Date(0) })
    .where("name", "=", "gone")
    .execute()

  const { status, body } = await api.ask("GET", "/capabilities")

  expect(status).toBe(200)
  expect(body).toMatchObject({
    hosts: [{ name: "h1", pool: "pool-of-h1", hypervisors: { qemu: hostQemu } }],
  })
  expect((await api.ask("GET", "/capabilities", { claims: null })).status).toBe(401)
})
