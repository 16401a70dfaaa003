import { execFile } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { open, readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest"
import { deleteInstances, testStack, untilTrue, type TestStack } from "./test-stack.ts"

describe("an idle app", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await testStack()
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  test.each(["api", "capture-worker", "compression-worker", "dispatcher"] as const)(
    "ends with status 0 at a SIGTERM: %s",
    async (app) => {
      const { child, ended } = await stack.spawn(app)

      child.kill("SIGTERM")

      expect(await ended).toBe(0)
    },
  )
})

describe("in the middle of a compression", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await testStack()
    await stack.startCaptureWorker()
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => stack[Symbol.asyncDispose]())

  test.each([
    ["SIGTERM", 0],
    ["SIGKILL", null],
  ] as const)("%s: the next worker starts it again and finishes it", async (signal, status) => {
    const source = await stack.launch("source")
    const compression = { enabled: true, algorithm: "zstd", level: 19 }
    const { id } = await stack.snapshot(source, { compression })
    await stack.until(async () => {
      const row = await stack.db
        .selectFrom("snapshots")
        .select("status")
        .where("id", "=", id)
        .executeTakeFirstOrThrow()
      return row.status === "ready" || undefined
    })
    const dir = join(stack.storageDir, "snapshots", id)
    const [token = ""] = await readdir(dir)
    // Memory that keeps a worker busy for long enough to be met at it.
    const memory = randomBytes(8 * 1024 ** 2)
    await writeFile(join(dir, token, "memory"), memory)
    const memory_sha256 = createHash("sha256").update(memory).digest("hex")
    await stack.db.updateTable("snapshots").set({ memory_sha256 }).where("id", "=", id).execute()

    const worker = await stack.spawn("compression-worker")
    await untilTrue(join(dir, token), async () =>
      (await readdir(join(dir, token))).some((name) => name.endsWith(".zst")),
    )
    worker.child.kill(signal)
    expect(await worker.ended).toBe(status)
    const half = (await readdir(join(dir, token))).filter((name) => name.endsWith(".zst"))
    expect(half).toHaveLength(signal === "SIGTERM" ? 0 : 1)
    await stack.db
      .updateTable("operations")
      .set({ lease_expires_at: new Date(0) })
      .where("state", "=", "running")
      .execute()
    await using _next = await stack.startCompressionWorker()
    const settled = await stack.settled(id)

    expect(settled).toMatchObject({ compression_state: "compressed", uncompressed_size_bytes: memory.length })
    await untilTrue(join(dir, token), async () => (await readdir(join(dir, token))).length === 3)
    expect(await readdir(join(dir, token))).not.toContain(half[0])
  })
})

test("certificates that Node is given are not left open in a VM", async () => {
  await using stack = await testStack()
  // Whoever opens it reads for ever.
  const certificates = join(stack.dataDir, "certificates.pem")
  await promisify(execFile)("mkfifo", [certificates])
  await using _writer = await open(certificates, "r+")
  vi.stubEnv("NODE_EXTRA_CA_CERTS", certificates)
  try {
    await stack.startCaptureWorker()

    const { state } = await stack.launch("source")

    expect(state).toBe("Running")
  } finally {
    vi.unstubAllEnvs()
  }
})
