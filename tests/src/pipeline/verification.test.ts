import { readdir, readFile, rename, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { createOperation } from "@stillframe/db/operations/operations"
import { startScrub } from "@stillframe/db/snapshots/verifications"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import { compressQueue } from "@stillframe/domain/queues"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { sql } from "kysely"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { captured } from "../contract/contract-stack.ts"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { flipBit } from "./flip-bit.ts"
import { testStack, untilTrue, type TestStack } from "./test-stack.ts"

const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }
const wait = { prefer: "wait=55" }
/** Bytes of zeros that take about so long. */
const minuteOfReading = 64 * 2 ** 30

let stack: TestStack
let vm: InstanceResource
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  const diskPath = join(stack.imagesDir, "disk.raw")
  await writeFile(diskPath, Buffer.alloc(1024 * 1024, 7))
  vm = await stack.launch("vm", { image: "heartbeat", disks: [{ path: diskPath, format: "raw" }] })
})
afterAll(() => stack[Symbol.asyncDispose]())

async function fileOf(id: string, pattern: RegExp): Promise<string> {
  const dir = await stack.payloadDir(id)
  return join(dir, (await readdir(dir)).find((name) => pattern.test(name)) ?? "")
}

function verify(id: string): Promise<Reply> {
  return stack.ask("POST", `/snapshots/${id}/verify`, { headers: wait })
}

/** Resolves when its files are gone too. */
async function deleted(id: string): Promise<void> {
  expect((await stack.ask("DELETE", `/snapshots/${id}`)).status).toBe(204)
  const snapshots = join(stack.storageDir, "snapshots")
  await untilTrue(snapshots, async () => !(await readdir(snapshots)).includes(id))
}

async function compressed(): Promise<SnapshotResource> {
  const { id } = await captured(stack, vm.id, zstd)
  return stack.settled(id)
}

/** What the feed says of a snapshot, once it has said `type`. */
function eventsUntil(id: string, type: string): Promise<EventEnvelope[]> {
  return stack.until(async () => {
    const events = await stack.api.request<EventEnvelope[]>("GET", `/events?snapshot_id=${id}`)
    return events.some((event) => event.type === type) ? events : undefined
  })
}

describe("a snapshot whose files are as they were captured", () => {
  test.each([
    ["raw", {}],
    ["compressed", zstd],
  ])("%s: is verified, and an event says so", async (_form, body) => {
    await using _worker = await stack.startCompressionWorker()
    const { id } = await captured(stack, vm.id, body)
    const before = await stack.settled(id)

    const accepted = await stack.ask("POST", `/snapshots/${id}/verify`)
    const { status, body: after } = await verify(id)

    expect([accepted.status, accepted.headers.get("location")]).toEqual([202, `/snapshots/${id}`])
    expect(status).toBe(200)
    expect(Date.parse(after.verified_at)).toBeGreaterThan(Date.parse(before.verified_at ?? "1970-01-01"))
    expect(after).not.toHaveProperty("error")
    const told = await eventsUntil(id, "snapshot.verified")
    expect(told.at(-1)?.data).toMatchObject({ id, verified_at: expect.any(String) })
  })
})

describe("a bit that has changed", () => {
  test("in the frames: neither fork nor restore may use them, and the file stays for inspection", async () => {
    await using _worker = await stack.startCompressionWorker()
    const { id } = await compressed()
    const frames = await fileOf(id, /\.zst$/)
    await flipBit(frames)
    const damaged = await readFile(frames)

    const { status, body } = await verify(id)

    expect([status, body.status, body.error.code]).toEqual([200, "ready", "corrupted"])
    expect(body.error.message).toContain(".zst")
    expect(body).toHaveProperty("corrupted_at")
    const told = await eventsUntil(id, "snapshot.corrupted")
    expect(told.at(-1)?.data).toMatchObject({ id, error: { code: "corrupted" } })
    await stack.api.request("POST", `/instances/${vm.id}/stop`)
    for (const [path, ask] of [
      [`/snapshots/${id}/fork`, { body: { name: "copy" } }],
      [`/instances/${vm.id}/snapshots/${id}/restore`, { body: { target_state: "Running" } }],
      [`/snapshots/${id}/compress`, { body: { algorithm: "lz4" } }],
    ] as const) {
      const refused = await stack.ask("POST", path, ask)
      expect([refused.status, refused.body.code]).toEqual([409, "conflict"])
      expect(refused.headers.get("x-should-retry")).toBe("false")
    }
    await stack.api.request("POST", `/instances/${vm.id}/start`, {})
    expect((await readFile(frames)).equals(damaged)).toBe(true)
    await deleted(id)
  })

  test("and is put right: the next verification takes the snapshot out of quarantine", async () => {
    await using _worker = await stack.startCompressionWorker()
    const { id } = await compressed()
    const frames = await fileOf(id, /\.zst$/)
    await flipBit(frames)
    expect((await verify(id)).body.error.code).toBe("corrupted")

    await flipBit(frames)
    const { body } = await verify(id)

    expect(body).not.toHaveProperty("error")
    expect(body).not.toHaveProperty("corrupted_at")
    const fork = await stack.ask("POST", `/snapshots/${id}/fork`, { body: { name: "mended" } })
    expect([fork.status, fork.body.state]).toEqual([201, "Running"])
    await untilTicks(stack.generationDir(fork.body), 3)
    await stack.api.request("DELETE", "/instances/mended")
  })

  test.each([
    ["the raw memory", {}, /^memory$/],
    ["a disk layer", zstd, /^disk0\.0\.qcow2$/],
    ["the kernel", zstd, /^kernel$/],
    ["an image", zstd, /^disk0\.base$/],
    [
      "the manifest's hash of the memory",
      zstd,
      /^manifest\.json$/,
      /("role": "memory",[^}]*"sha256": ")./,
      "$1-",
    ],
    ["the manifest's launch", {}, /^manifest\.json$/, /"memoryMib": \d+/, '"memoryMib": 4096'],
  ])("in %s is found", async (_what, body, pattern, changed = /$/, to = "") => {
    await using _worker = await stack.startCompressionWorker()
    const { id } = await stack.settled((await captured(stack, vm.id, body)).id)
    const path = await fileOf(id, pattern)
    if (path.endsWith("manifest.json")) {
      const text = await readFile(path, "utf8")
      await writeFile(path, text.replace(changed, to))
    } else await rewritten(path)

    expect((await verify(id)).body.error.code).toBe("corrupted")
  })
})

/** The file replaced by one of its own with a bit changed: the layers are shared with the VM that runs. */
async function rewritten(path: string): Promise<void> {
  const bytes = await readFile(path)
  bytes[bytes.length >> 1]! ^= 1
  await writeFile(`${path}.new`, bytes)
  await rename(`${path}.new`, path)
}

test.each([
  ["is missing", async (path: string) => rename(path, `${path}.away`), "missing"],
  ["was cut off", async (path: string) => truncate(path, 4096), "damaged"],
])("a memory file that %s is found", async (_what, damage, message) => {
  await using _worker = await stack.startCompressionWorker()
  const { id } = await compressed()
  await damage(await fileOf(id, /\.zst$/))

  const { body } = await verify(id)

  expect(body.error).toMatchObject({ code: "corrupted", message: expect.stringContaining(message) })
})

test.each([
  ["frames", zstd, /\.zst$/],
  ["raw memory", {}, /^memory$/],
])(
  "a fork that meets damaged %s is refused, leaves no instance, and has the snapshot verified",
  async (_form, body, file) => {
    await using _worker = await stack.startCompressionWorker()
    const { id } = await stack.settled((await captured(stack, vm.id, body)).id)
    await flipBit(await fileOf(id, file))

    const refused = await stack.ask("POST", `/snapshots/${id}/fork`, { body: { name: "unlucky" } })

    expect([refused.status, refused.body.code]).toEqual([409, "conflict"])
    expect((await stack.ask("GET", "/instances/unlucky")).status).toBe(404)
    await eventsUntil(id, "snapshot.corrupted")
  },
)

test("a snapshot deleted while it is verified is gone with all its files, long before they are read", async () => {
  await using _worker = await stack.startCompressionWorker()
  const { id } = await captured(stack, vm.id)
  await truncate(join(await stack.payloadDir(id), "memory"), minuteOfReading)
  expect((await stack.ask("POST", `/snapshots/${id}/verify`)).status).toBe(202)
  const readers = stack.db.selectFrom("snapshot_readers").select("id").where("snapshot_id", "=", id)
  await expect.poll(() => readers.execute()).toHaveLength(1)

  await deleted(id)
})

describe("the scrub", () => {
  const monthMs = 30 * 24 * 3_600_000
  const longAgo = new Date(Date.now() - 2 * monthMs)
  const pool = (): string => `pool-${stack.clusterId}`

  async function verifiedLongAgo(id: string): Promise<void> {
    await stack.db.updateTable("snapshots").set({ verified_at: longAgo }).where("id", "=", id).execute()
  }

  test("verifies what was verified too long ago", async () => {
    await using _worker = await stack.startCompressionWorker()
    const { id } = await compressed()
    await verifiedLongAgo(id)

    expect(await startScrub(stack.db, { pool: pool(), intervalMs: monthMs })).toBe(id)

    const told = await eventsUntil(id, "snapshot.verified")
    const last = told.at(-1)?.data as SnapshotResource | undefined
    expect(Date.parse(last?.verified_at ?? "")).toBeGreaterThan(longAgo.getTime())
  })

  test("gives way to work that waits, and says nothing of what it has not read to its end", async () => {
    const { id } = await captured(stack, vm.id)
    await verifiedLongAgo(id)
    await truncate(join(await stack.payloadDir(id), "memory"), minuteOfReading)
    await startScrub(stack.db, { pool: pool(), intervalMs: monthMs })
    const other = await captured(stack, vm.id, zstd)

    await using _worker = await stack.startCompressionWorker()

    expect((await stack.settled(other.id)).compression_state).toBe("compressed")
    const events = await stack.api.request<EventEnvelope[]>("GET", `/events?snapshot_id=${id}`)
    expect(events.map(({ type }) => type)).not.toContain("snapshot.corrupted")
    expect((await stack.ask("GET", `/snapshots/${id}`)).body.verified_at).toBe(longAgo.toISOString())
    await deleted(id)
  })

  test("takes the oldest, once, and never what is young, in quarantine, or of a pool at work", async () => {
    const ids: string[] = []
    for (let count = 0; count < 3; count += 1) ids.push((await captured(stack, vm.id)).id)
    const [oldest = "", corrupted = "", young = ""] = ids
    await verifiedLongAgo(oldest)
    const at = { verified_at: new Date(longAgo.getTime() - monthMs), corrupted_at: longAgo }
    await stack.db.updateTable("snapshots").set(at).where("id", "=", corrupted).execute()
    const scrub = { pool: pool(), intervalMs: monthMs }

    const busy = await createOperation(stack.db, { kind: "delete", queue: compressQueue(pool()) })
    expect(await startScrub(stack.db, scrub)).toBeUndefined()
    await stack.db.deleteFrom("operations").where("id", "=", busy).execute()
    // They all have chosen before the first can write it down.
    const chosen = await stack.db.transaction().execute(async (tx) => {
      await sql`lock table operations in exclusive mode`.execute(tx)
      const asked = Array.from({ length: 4 }, () => startScrub(stack.db, scrub))
      const waits = sql`select from pg_locks where relation = 'operations'::regclass and not granted`
      await expect.poll(async () => (await waits.execute(tx)).rows.length).toBeGreaterThan(0)
      return asked
    })
    expect((await Promise.all(chosen)).filter((id) => id !== undefined)).toEqual([oldest])
    expect((await stack.ask("GET", `/snapshots/${young}`)).body).not.toHaveProperty("verified_at")
  })
})
