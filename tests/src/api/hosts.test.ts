import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { testApi, type TestApi } from "./test-api.ts"

async function eventTypes(api: TestApi): Promise<string[]> {
  const rows = await api.db.selectFrom("events").select("type").orderBy("id").execute()
  return rows.map(({ type }) => type)
}

/** The instances `a` and `b` on `h1`; `a` has a captured snapshot, `b` one that is queued. */
async function twoInstances(api: TestApi): Promise<{ captured: string; queued: string }> {
  const worker = asWorker(api)
  const [captured, queued] = await Promise.all(
    ["a", "b"].map(async (name) => {
      await api.instance(name)
      return (await api.ask("POST", `/instances/${name}/snapshots`, { body: { kind: "Standby" } })).body.id
    }),
  )
  for (const _ of ["a", "b"]) {
    const operation = await worker.take()
    if (operation.snapshotId === captured) await worker.captured(operation)
  }
  return { captured, queued }
}

test("hosts are listed with their life sign, up or not", async () => {
  await using api = await testApi()
  await api.instance("vm")
  await api.host("h2")
  await api.loseHost("h2")

  const common = { heartbeat_at: expect.any(String), hypervisors: { qemu: "7.2.22" }, problems: [] }
  const h1 = { name: "h1", pool: "pool-of-h1", up: true, instance_count: 1, ...common }
  const h2 = { name: "h2", pool: "pool-of-h2", up: false, instance_count: 0, ...common }
  expect((await api.ask("GET", "/hosts")).body).toEqual([h1, h2])
  expect((await api.ask("GET", "/hosts/h1")).body).toMatchObject({
    ...h1,
    leaves: { instances: [{ name: "vm", state: "Running" }], captures: 0, snapshots: 0, stored_bytes: 0 },
  })
  expect((await api.ask("GET", "/hosts/h3")).body).toEqual({ code: "not_found", message: "host not found" })
})

test("forgetting a host needs both scopes", async () => {
  await using api = await testApi()
  for (const permissions of [["instance:write"], ["snapshot:delete"], ["instance:read"]])
    expect((await api.ask("DELETE", "/hosts/h1", { claims: { permissions } })).status).toBe(403)
})

test("a host that is up is not forgotten", async () => {
  await using api = await testApi()
  await api.instance("vm")

  const { status, body, headers } = await api.ask("DELETE", "/hosts/h1?confirm=1")

  expect([status, body.code, headers.get("x-should-retry")]).toEqual([409, "conflict", "false"])
  expect(body.message).toContain("is up")
  expect((await api.ask("GET", "/instances/vm")).status).toBe(200)
})

test("without the right number of instances nothing is forgotten, and the answer says what is lost", async () => {
  await using api = await testApi()
  await twoInstances(api)
  await api.loseHost("h1")

  for (const query of ["", "?confirm=1", "?confirm=3"]) {
    const { status, body } = await api.ask("DELETE", `/hosts/h1${query}`)
    expect([status, body.code]).toEqual([409, "conflict"])
    expect(body.message).toMatch(
      /deletes 2 instances \(a, b\), fails 1 uncaptured snapshot, leaves 1 snapshot \(100 bytes\)/,
    )
    expect(body.message).toContain("?confirm=2")
  }

  expect((await api.ask("GET", "/instances")).body).toHaveLength(2)
  expect(await eventTypes(api)).not.toContain("instance.deleted")
})

test("attached VMs that may stay on overlays are told before a host is forgotten, and where those lie", async () => {
  await using api = await testApi()
  const { db } = api
  for (const [name, attached] of [
    ["ours", null],
    ["cloned", { allowOverlay: false }],
    ["copied", { allowOverlay: true }],
  ] as const) {
    const { id } = await api.instance(name)
    await db
      .updateTable("instances")
      .set({
        attached: attached === null ? null : JSON.stringify({ ...attached, process: { pid: 1, name } }),
      })
      .where("id", "=", id)
      .execute()
  }
  await api.loseHost("h1")

  const { leaves } = (await api.ask("GET", "/hosts/h1")).body
  const { status, body } = await api.ask("DELETE", "/hosts/h1")

  expect(leaves.instances).toEqual([
    { id: expect.any(String), name: "cloned", state: "Running" },
    { id: expect.any(String), name: "copied", state: "Running", may_use_overlays: true },
    { id: expect.any(String), name: "ours", state: "Running" },
  ])
  expect(status).toBe(409)
  expect(body.message).toMatch(/at most 1 attached VMs \(copied\) on overlays .*<disk>\.stillframe-overlay/)
})

test("a forgotten host's instances are deleted and its captures fail, each with one event", async () => {
  await using api = await testApi()
  const { captured, queued } = await twoInstances(api)
  await api.loseHost("h1")
  await api.ask("DELETE", "/instances/b")
  const before = await eventTypes(api)
  await api.instance("c").then(() => api.loseHost("h1"))

  const { status, body } = await api.ask("DELETE", "/hosts/h1?confirm=3")

  expect(status).toBe(200)
  expect(body).toMatchObject({ instances: [{ name: "a" }, { name: "b" }, { name: "c" }], snapshots: 1 })
  expect((await api.ask("GET", "/instances")).body).toEqual([])
  expect((await api.ask("GET", "/hosts")).body).toEqual([])
  expect((await api.ask("DELETE", "/hosts/h1?confirm=0")).status).toBe(404)
  // The DELETE before had failed the capture already.
  expect(before.filter((type) => type === "snapshot.failed")).toHaveLength(1)
  const after = await eventTypes(api)
  expect(after.slice(before.length)).toEqual(["instance.deleted", "instance.deleted", "instance.deleted"])
  const open = api.db.selectFrom("operations").select("id").where("state", "in", ["queued", "running"])
  expect((await open.execute()).length).toBe(0)
  expect((await api.ask("GET", `/snapshots/${queued}`)).body.status).toBe("failed")
  expect((await api.ask("GET", `/snapshots/${captured}`)).body).toMatchObject({
    status: "ready",
    storage_error: expect.stringContaining('no host has the storage pool "pool-of-h1"'),
  })
  const fork = await api.ask("POST", `/snapshots/${captured}/fork`, { body: { name: "copy" } })
  expect([fork.status, fork.body.code]).toEqual([503, "storage_unavailable"])
})

test("a capture that a forgotten host has not begun fails with one event", async () => {
  await using api = await testApi()
  const { queued } = await twoInstances(api)
  await api.loseHost("h1")

  await api.ask("DELETE", "/hosts/h1?confirm=2")

  expect((await api.ask("GET", `/snapshots/${queued}`)).body).toMatchObject({
    status: "failed",
    error: { code: "cancelled", message: expect.stringContaining('host "h1" was forgotten') },
  })
  expect((await eventTypes(api)).filter((type) => type === "snapshot.failed")).toHaveLength(1)
})

test("snapshots of a forgotten host are forked by another host with its pool", async () => {
  await using api = await testApi()
  const { captured } = await twoInstances(api)
  await api.host("h2")
  await api.db.updateTable("hosts").set({ pool: "pool-of-h1" }).where("name", "=", "h2").execute()
  await api.loseHost("h1")
  expect((await api.ask("DELETE", "/hosts/h1?confirm=2")).body).toMatchObject({ snapshots: 0 })

  const fork = await api.ask("POST", `/snapshots/${captured}/fork`, {
    body: { name: "copy" },
    headers: { prefer: "respond-async" },
  })

  expect([fork.status, fork.body.host]).toEqual([202, "h2"])
  expect((await api.ask("GET", `/snapshots/${captured}`)).body).not.toHaveProperty("storage_error")
})

test("a host that comes back after it was forgotten registers anew, without its instances", async () => {
  await using api = await testApi()
  await api.instance("vm")
  await api.loseHost("h1")
  await api.ask("DELETE", "/hosts/h1?confirm=1")

  await api.host("h1")

  expect((await api.ask("GET", "/hosts")).body).toMatchObject([{ name: "h1", up: true, instance_count: 0 }])
})
