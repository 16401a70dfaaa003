import { expect, test } from "vitest"
import { asWorker } from "./as-worker.ts"
import { statuses, testApi, type Reply, type TestApi } from "./test-api.ts"

function launch(api: TestApi, body: object, headers: Record<string, string> = {}): Promise<Reply> {
  return api.ask("POST", "/instances", { body, headers })
}

test("a launch answers 201 with the instance once it runs", async () => {
  await using api = await testApi()
  await api.host("h1")
  const worker = asWorker(api)

  const reply = launch(api, { name: "vm", image: "demo", tags: { a: "b" }, size: "0.5GB", vcpus: 2, env: {} })
  const operation = await worker.take()
  await worker.launched(operation)

  const { status, body, headers } = await reply
  expect(status).toBe(201)
  expect(body).toEqual({
    id: operation.instanceId,
    name: "vm",
    image: "demo",
    hypervisor: "qemu",
    host: "h1",
    state: "Running",
    vcpus: 2,
    size: "512 MB",
    tags: { a: "b" },
    has_snapshot: false,
    created_at: expect.any(String),
    started_at: expect.any(String),
    expires_at: null,
  })
  expect(headers.get("location")).toBe(`/instances/${body.id}`)
  expect((await api.ask("GET", `/instances/vm`)).body).toEqual(body)
  expect((await api.ask("GET", `/instances`)).body).toEqual([body])
  const { launch: stored } = await api.db.selectFrom("instances").select("launch").executeTakeFirstOrThrow()
  expect(stored).toEqual({ image: "demo", memory_mib: 512, vcpus: 2 })
  const events = await api.db.selectFrom("events").select("type").orderBy("id").execute()
  expect(events.map(({ type }) => type)).toEqual(["instance.created", "instance.state_changed"])
})

test("a launch of own files is stored as it was validated, and respond-async does not wait for it", async () => {
  await using api = await testApi()
  await api.host("h1")
  const own = {
    kernel: "/srv/vmlinuz",
    initrd: "/srv/initrd",
    cmdline: "console=ttyS0 quiet",
    memory_mib: 128,
    disks: [{ path: "/srv/disk 1.qcow2", format: "qcow2", readonly: true }],
    machine: "q35",
  }

  const { status, body } = await launch(
    api,
    { name: "vm", launch: { ...own, argv: "x" } },
    { prefer: "respond-async" },
  )

  expect([status, body.state, body.image, body.size]).toEqual([202, "Initializing", "custom", "128 MB"])
  const { launch: stored } = await api.db.selectFrom("instances").select("launch").executeTakeFirstOrThrow()
  expect(stored).toEqual({ ...own, vcpus: 1 })
})

test("a launch that fails answers with its reason, which clients do not repeat, and leaves no instance", async () => {
  await using api = await testApi()
  await api.host("h1")
  const worker = asWorker(api)
  const cases = [
    { code: "invalid_request", status: 400, shown: "invalid_request", retry: null },
    { code: "insufficient_resources", status: 409, shown: "insufficient_resources", retry: "false" },
    { code: "hypervisor_unavailable", status: 501, shown: "not_supported", retry: "false" },
    { code: "hypervisor_failed", status: 500, shown: "internal_error", retry: "false" },
  ] as const

  for (const { code, status, shown, retry } of cases) {
    const reply = launch(api, { name: "vm", image: "heartbeat" })
    await worker.failed(await worker.take(), { code, message: "why; what to do" })
    const { status: answered, body, headers } = await reply
    expect([answered, body, headers.get("x-should-retry")]).toEqual([
      status,
      { code: shown, message: "why; what to do" },
      retry,
    ])
  }
  expect((await api.ask("GET", "/instances")).body).toEqual([])
})

test("the host is the one that is up, or the one that is named, and it must offer the hypervisor", async () => {
  await using api = await testApi()
  const vm = { name: "vm", image: "demo" }
  const now = { prefer: "respond-async" }

  const none = await launch(api, vm)
  expect([none.status, none.body.code, none.headers.get("x-should-retry")]).toEqual([
    503,
    "unavailable",
    "true",
  ])
  await api.host("h1")
  await api.host("h2")
  expect((await launch(api, vm)).body).toEqual({
    code: "invalid_request",
    message: 'several hosts are up; name one of them as "host": h1, h2',
  })
  expect((await launch(api, { ...vm, host: "h3" })).body.message).toBe(
    'host "h3" is not up; hosts that are: h1, h2',
  )
  for (const hypervisor of ["firecracker", "vz"]) {
    const other = await launch(api, { ...vm, host: "h1", hypervisor })
    expect([other.status, other.body.code]).toEqual([501, "not_supported"])
    expect(other.body.message).toContain(`no host that is up offers hypervisor "${hypervisor}"`)
  }
  const nowhere = await launch(api, { ...vm, hypervisor: "vz" })
  expect(nowhere.body).toEqual({
    code: "not_supported",
    message:
      'no host that is up offers hypervisor "vz": vz needs macOS 14 or later on Apple silicon; use another hypervisor here, or a host that is such a Mac. Offered: qemu',
  })
  expect((await launch(api, { ...vm, host: "h2" }, now)).body.host).toBe("h2")
})

test("a launch with a volume, a device or a GPU is not made without it", async () => {
  await using api = await testApi()
  await api.host("h1")
  for (const wanted of [
    { volumes: [{ volume_id: "v", mount_path: "/v" }] },
    { devices: ["gpu0"] },
    { gpu: { profile: "x" } },
  ]) {
    const body = { name: "vm", image: "heartbeat", ...wanted }
    const reply = await api.ask("POST", "/instances", { body })
    expect([reply.status, reply.body.code, reply.headers.get("x-should-retry")]).toEqual([
      501,
      "not_supported",
      "false",
    ])
  }
  const body = { name: "vm", image: "heartbeat", volumes: [], devices: [], gpu: null }
  expect((await api.ask("POST", "/instances", { body, headers: { prefer: "wait=0" } })).status).toBe(202)
})

test("an instance's policy is checked, and shown as it is kept", async () => {
  await using api = await testApi()
  await api.host("h1")
  const ask = (policy: object): Promise<Reply> =>
    launch(api, { name: "vm", image: "heartbeat", snapshot_policy: policy }, { prefer: "respond-async" })
  const compression = { enabled: true, algorithm: "zstd", level: 3 }

  const level = await ask({ compression: { ...compression, level: 0 } })
  const delay = await ask({ compression, standby_compression_delay: "soon" })
  const right = await ask({ compression, standby_compression_delay: "90m" })

  expect([level.status, level.body.code]).toEqual([400, "invalid_snapshot_compression"])
  expect([delay.status, delay.body.code]).toEqual([400, "invalid_request"])
  expect(delay.body.message).toContain("standby_compression_delay must be a duration")
  expect(right.body.snapshot_policy).toEqual({ compression, standby_compression_delay: "1h30m0s" })
})

test("of two launches with one name one is a conflict", async () => {
  await using api = await testApi()
  await api.host("h1")
  const twice = Array.from({ length: 4 }, () =>
    launch(api, { name: "vm", image: "demo" }, { prefer: "respond-async" }),
  )

  const replies = await Promise.all(twice)

  expect(statuses(replies)).toEqual([202, 409, 409, 409])
  expect(replies.find(({ status }) => status === 409)?.body.code).toBe("conflict")
})

test("a launch that can't be right is refused before anything is written", async () => {
  await using api = await testApi()
  await api.host("h1")
  const disk = { path: "/a", format: "raw" }
  const schema = [
    { image: "demo" },
    { name: "vm", image: "nginx" },
    { name: "vm", image: "demo", vcpus: 0 },
    { name: "vm", image: "demo", size: "much" },
    { name: "vm", image: "demo", hypervisor: "xen" },
    { name: "vm", image: "demo", host: "H 1" },
    { name: "vm", image: "demo", snapshot_policy: { compression: {} } },
    ...["relative", "/a,b", "/a:b", "/a\\b", "/a\nb", "/a\0", "/a\u0085", "/\ud800", ""].map((kernel) => ({
      name: "vm",
      launch: { kernel, memory_mib: 64 },
    })),
    { name: "vm", launch: { kernel: "/a", cmdline: "a\0", memory_mib: 64 } },
    { name: "vm", launch: { disks: [{ path: "/a" }], memory_mib: 64 } },
    { name: "vm", launch: { disks: Array.from({ length: 17 }, () => disk), memory_mib: 64 } },
    { name: "vm", launch: { disks: [disk], memory_mib: 15 } },
    { name: "vm", launch: { disks: [disk], memory_mib: 64, machine: "-device x" } },
  ]
  const handler = [
    { name: "vm" },
    { name: "vm", launch: {} },
    { name: "vm", launch: { kernel: "/a" } },
    { name: "vm", launch: { disks: [disk], initrd: "/b", memory_mib: 64 } },
    { name: "vm", image: "demo", size: "1MB" },
  ]

  for (const body of schema) {
    const reply = await launch(api, body)
    expect([reply.status, reply.body.code], `for ${JSON.stringify(body)}`).toEqual([400, "Bad Request"])
  }
  for (const body of handler) {
    const reply = await launch(api, body)
    expect([reply.status, reply.body.code], `for ${JSON.stringify(body)}`).toEqual([400, "invalid_request"])
  }
  const policy = { compression: { enabled: true, level: 0 } }
  expect((await launch(api, { name: "vm", image: "demo", snapshot_policy: policy })).body.code).toBe(
    "invalid_snapshot_compression",
  )
  expect((await api.ask("GET", "/instances")).body).toEqual([])
})

test("a DELETE answers when the VM has ended, and a second one joins the first", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const worker = asWorker(api)

  const first = api.ask("DELETE", "/instances/vm")
  const operation = await worker.take()
  const second = api.ask("DELETE", "/instances/vm", { headers: { prefer: "respond-async" } })
  const { status: waits, body } = await second
  expect([waits, body.name]).toEqual([202, "vm"])
  await worker.ended(operation)

  const { status, text } = await first
  expect([status, text]).toEqual([204, ""])
  expect((await api.ask("DELETE", "/instances/vm")).body).toEqual({
    code: "not_found",
    message: "resource not found",
  })
  expect(await api.db.selectFrom("operations").select(["kind", "queue"]).execute()).toEqual([
    { kind: "delete", queue: "capture.h1" },
  ])
})

test.each([
  ["?graceful_shutdown=true", { graceful: true }],
  ["?graceful_shutdown=false", {}],
  ["", {}],
])("a delete%s has its worker ask the guest first, or not", async (query, params) => {
  await using api = await testApi()
  await api.instance("vm")

  const { status } = await api.ask("DELETE", `/instances/vm${query}`, {
    headers: { prefer: "respond-async" },
  })

  expect([status, (await asWorker(api).take()).params]).toEqual([202, params])
  expect((await api.ask("DELETE", "/instances/vm?graceful_shutdown=perhaps")).status).toBe(400)
})
