import Hypeman, {
  BadRequestError,
  ConflictError,
  InternalServerError,
  NotFoundError,
} from "@onkernel/hypeman"
import { waitSecondsMax } from "@stillframe/api/http/prefer"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { testApi, token, type TestApi } from "../api/test-api.ts"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { deleteInstances, testStack, type TestStack } from "../pipeline/test-stack.ts"
import { lifeDir } from "./contract-stack.ts"
import { startProxy, type Proxy } from "./proxy.ts"

const claims = { permissions: ["*"], sub: "local" }

/** The official client, as it comes, behind a proxy that sees what it does. */
function clientOf(proxy: Proxy, options: { timeout?: number; maxRetries?: number } = {}): Hypeman {
  return new Hypeman({ apiKey: token(claims), baseURL: proxy.url, logLevel: "off", ...options })
}

async function snapshotCount({ ask }: Pick<TestStack, "ask">, source: string): Promise<number> {
  const query = `source_instance_id=${source}&status=queued,capturing,ready,failed`
  return (await ask("GET", `/snapshots?${query}`)).body.length
}

/** Case 70; resolves with the snapshot as its create was answered. */
async function expectFullCycle(stack: TestStack): Promise<{ size_bytes: number }> {
  const hypeman = new Hypeman({ apiKey: stack.token, baseURL: stack.url })
  const others = await hypeman.instances.list()
  const source = await hypeman.instances.create({ name: "source", image: "heartbeat" })
  expect(source).toMatchObject({ name: "source", state: "Running", expires_at: null })

  const created = await hypeman.instances.snapshots.create(source.id, {
    kind: "Standby",
    name: "pre-upgrade",
    tags: { team: "backend", env: "staging" },
    compression: { enabled: true, algorithm: "zstd", level: 1 },
  })
  expect(created).toMatchObject({ kind: "Standby", name: "pre-upgrade", source_instance_id: source.id })

  const listed = await hypeman.snapshots.list({
    kind: "Standby",
    tags: { team: "backend", env: "staging" },
  })
  expect(listed.map(({ id }) => id)).toEqual([created.id])
  expect(await hypeman.snapshots.get(created.id)).toMatchObject({ id: created.id, tags: created.tags })

  const fork = await hypeman.snapshots.fork(created.id, { name: "copy" })
  expect(fork).toMatchObject({ name: "copy", state: "Running" })
  await untilTicks(stack.generationDir(fork), 3)

  expect((await hypeman.instances.stop(source.id)).state).toBe("Stopped")
  const restored = await hypeman.instances.snapshots.restore(created.id, { id: source.id })
  expect(restored).toMatchObject({ id: source.id, name: "source", state: "Running" })
  await untilTicks(await lifeDir(stack, source.id), 3)
  expect((await hypeman.instances.standby(source.id)).state).toBe("Standby")
  expect((await hypeman.instances.restore(source.id)).state).toBe("Running")

  // The answer is null where the client's types have nothing.
  expect(await hypeman.snapshots.delete(created.id)).toBeNull()
  await expect(hypeman.snapshots.get(created.id)).rejects.toThrow(NotFoundError)
  for (const { id } of [source, fork]) await hypeman.instances.delete(id)
  expect(await hypeman.instances.list()).toEqual(others)
  return created
}

describe("with SNAPSHOT_CREATE=async", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await testStack()
    await stack.startCaptureWorker()
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => stack[Symbol.asyncDispose]())

  test("case 70: the official client creates, lists, gets, forks, restores, stands by and deletes", async () => {
    await using _compressor = await stack.startCompressionWorker()
    expect((await expectFullCycle(stack)).size_bytes).toBe(0)
  })

  test("case 68: what can't be helped by a repetition is asked once, and raised with its code", async () => {
    const { id } = await stack.launch("vm")
    await using proxy = await startProxy(stack.url)
    const hypeman = clientOf(proxy)
    await hypeman.instances.snapshots.create(id, { kind: "Standby", name: "taken" })

    const conflict = await failure(hypeman.instances.snapshots.create(id, { kind: "Standby", name: "taken" }))
    const state = await failure(hypeman.instances.snapshots.create(id, { kind: "Stopped" }))
    const unsupported = await failure(
      hypeman.instances.create({ name: "fire", image: "heartbeat", hypervisor: "firecracker" }),
    )

    for (const error of [conflict, state]) {
      expect(error).toBeInstanceOf(ConflictError)
      expect(error).toMatchObject({ status: 409, error: { code: "conflict" } })
    }
    expect(unsupported).toBeInstanceOf(InternalServerError)
    expect(unsupported).toMatchObject({ status: 501, error: { code: "not_supported" } })
    expect(proxy.requests).toHaveLength(4)
  })

  test("case 72: the same Idempotency-Key twice is the same snapshot, one record, also when its answer was lost", async () => {
    const { id } = await stack.launch("vm")
    await using proxy = await startProxy(stack.url)
    const hypeman = clientOf(proxy)
    const headers = { "Idempotency-Key": "nightly-2026-01-01", prefer: "wait=55" }
    proxy.treat("cut")

    const first = await hypeman.instances.snapshots.create(id, { kind: "Standby" }, { headers })
    const second = await hypeman.instances.snapshots.create(id, { kind: "Standby" }, { headers })

    expect(proxy.requests).toHaveLength(3)
    expect(second.id).toBe(first.id)
    expect(await snapshotCount(stack, id)).toBe(1)
    const raw = await stack.ask("POST", `/instances/${id}/snapshots`, {
      body: { kind: "Standby" },
      headers,
      claims,
    })
    expect([raw.status, raw.body.id, raw.headers.get("idempotent-replayed")]).toEqual([201, first.id, "true"])
  })
})

describe("with SNAPSHOT_CREATE=sync", () => {
  let stack: TestStack
  /** A running guest whose host's worker is gone: a capture stays queued until another one starts. */
  let id: string
  beforeAll(async () => {
    stack = await testStack({ api: { snapshotCreate: "sync" } })
    await using _worker = await stack.startCaptureWorker()
    ;({ id } = await stack.launch("vm"))
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  test("case 70: the official client creates, lists, gets, forks, restores, stands by and deletes", async () => {
    await using _worker = await stack.startCaptureWorker()
    await using _compressor = await stack.startCompressionWorker()
    expect((await expectFullCycle(stack)).size_bytes).toBeGreaterThan(0)
  })

  test("case 67: in sync mode a client that gives up and repeats its create gets the one snapshot it asked for", async () => {
    await using proxy = await startProxy(stack.url)
    const before = await snapshotCount(stack, id)

    const reply = clientOf(proxy, { timeout: 2_000, maxRetries: 10 }).instances.snapshots.create(id, {
      kind: "Standby",
    })
    await expect.poll(() => proxy.requests.length).toBeGreaterThanOrEqual(2)
    await using _worker = await stack.startCaptureWorker()
    const snapshot = await reply

    expect(proxy.requests[1]?.headers["x-stainless-retry-count"]).toBe("1")
    expect(await snapshotCount(stack, id)).toBe(before + 1)
    expect((await stack.ask("GET", `/snapshots/${snapshot.id}`)).body.status).toBe("ready")
  })

  test("case 67: in sync mode a wait that runs out is 504, never 202, and its repetition joins the same snapshot", async () => {
    await using proxy = await startProxy(stack.url)
    const body = { kind: "Standby" }
    const expired = await stack.ask("POST", `/instances/${id}/snapshots`, {
      body,
      headers: { prefer: "wait=1" },
    })
    expect([expired.status, expired.body.code, expired.headers.get("x-should-retry")]).toEqual([
      504,
      "timeout",
      "true",
    ])
    const before = await snapshotCount(stack, id)

    const reply = clientOf(proxy, { maxRetries: 10 }).instances.snapshots.create(
      id,
      { kind: "Standby", name: "second" },
      { headers: { prefer: "wait=1" } },
    )
    await expect.poll(() => proxy.requests.length).toBeGreaterThanOrEqual(2)
    await using _worker = await stack.startCaptureWorker()

    expect((await reply).name).toBe("second")
    expect(await snapshotCount(stack, id)).toBe(before + 1)
  })
})

test("case 67: an answer is held for less time than the official client waits", () => {
  expect(Hypeman.DEFAULT_TIMEOUT).toBe(60_000)
  expect(waitSecondsMax).toBeLessThan(Hypeman.DEFAULT_TIMEOUT / 1_000)
})

describe("where no worker runs", () => {
  let server: TestApi
  beforeAll(async () => {
    server = await testApi()
  })
  afterAll(() => server[Symbol.asyncDispose]())

  test.each([
    ["cut", "cut"],
    ["504", { replaced: { status: 504 } }],
  ] as const)(
    "case 67: an answer lost on its way (%s) and repeated by the client makes one snapshot while it is queued",
    async (name, treatment) => {
      const { id } = await server.instance(`vm-${name}`)
      await using proxy = await startProxy(server.api.url)
      proxy.treat(treatment, treatment)

      // With a name, a second attempt that made a snapshot of its own would be a conflict with the first.
      const snapshot = await clientOf(proxy).instances.snapshots.create(id, {
        kind: "Standby",
        name: "once",
      })

      expect(proxy.requests).toHaveLength(3)
      expect(snapshot.name).toBe("once")
      expect(await snapshotCount(server, id)).toBe(1)
    },
  )

  test("case 69: what is wrong with a request reaches the client's error as code and message", async () => {
    await using proxy = await startProxy(server.api.url)
    const hypeman = clientOf(proxy)
    const level = { enabled: true, algorithm: "zstd", level: 20 } as const

    const schema = await failure(
      hypeman.instances.snapshots.create("vm", {
        kind: "Standby",
        name: 'with "quotes"',
        compression: level,
      }),
    )

    expect(schema).toBeInstanceOf(BadRequestError)
    expect(schema).toMatchObject({
      status: 400,
      error: { code: "Bad Request", message: expect.stringContaining('Error at "/') },
    })
    expect(schema.message).toContain("400 request body has an error")
    expect(proxy.requests).toHaveLength(1)
  })

  test("case 71: told to come back, the client waits as long as it is told and succeeds", async () => {
    await using proxy = await startProxy(server.api.url)
    const later = { "retry-after-ms": "300" }
    proxy.treat({ instead: { status: 429, headers: later } }, { instead: { status: 503, headers: later } })

    const started = performance.now()
    const listed = await clientOf(proxy).snapshots.list()

    expect(listed).toEqual((await server.ask("GET", "/snapshots")).body)
    expect(proxy.requests).toHaveLength(3)
    expect(performance.now() - started).toBeGreaterThan(550)
  })

  test("case 71: while no host is up, a launch tells the client that coming back may help", async () => {
    await using hostless = await testApi()

    const { status, body, headers } = await hostless.ask("POST", "/instances", {
      body: { name: "vm", image: "heartbeat" },
    })

    expect([status, body.code, headers.get("x-should-retry")]).toEqual([503, "unavailable", "true"])
  })
})

async function failure(promise: Promise<unknown>): Promise<Error> {
  return promise.then(
    () => expect.fail("it should have been refused"),
    (error: Error) => error,
  )
}
