import { mkdir, readdir, rename, rmdir } from "node:fs/promises"
import { join } from "node:path"
import { expect, test } from "vitest"
import { captured } from "../contract/contract-stack.ts"
import { testStack, untilTrue, type TestStack } from "./test-stack.ts"

/**
 * An empty directory in the pool's place, as where its disk was mounted; resolves with how to bring it back.
 */
async function takeAway({ storageDir }: TestStack): Promise<() => Promise<void>> {
  await rename(storageDir, `${storageDir}.away`)
  await mkdir(storageDir)
  return async () => {
    await rmdir(storageDir)
    await rename(`${storageDir}.away`, storageDir)
  }
}

/** The open operations, once each was claimed and handed back at least once. */
async function untilHandedBack({ db }: TestStack, count: number): Promise<void> {
  const handedBack = db
    .selectFrom("operations")
    .select(["kind", "attempt"])
    .where("state", "=", "queued")
    .where("wake", ">", 0)
    .where("attempt", "=", 0)
  await expect.poll(() => handedBack.execute(), { timeout: 30_000 }).toHaveLength(count)
}

test("while a pool is away its work waits and nothing is judged by it; when it is back all of it is done", async () => {
  await using stack = await testStack()
  await stack.startCaptureWorker()
  await stack.startCompressionWorker()
  const vm = await stack.launch("vm")
  const kept = await captured(stack, vm.id)
  const raw = await captured(stack, vm.id)
  const gone = await captured(stack, vm.id)
  const ready = (): Promise<number> =>
    stack.ask("GET", "/ready", { claims: null }).then(({ status }) => status)
  expect(await ready()).toBe(200)

  const bringBack = await takeAway(stack)
  const verification = await stack.ask("POST", `/snapshots/${kept.id}/verify`)
  const compression = await stack.ask("POST", `/snapshots/${raw.id}/compress`, {
    body: { algorithm: "zstd", level: 1 },
  })
  const deletion = await stack.ask("DELETE", `/snapshots/${gone.id}`)
  const made = await stack.snapshot(vm)
  const fork = await stack.ask("POST", `/snapshots/${kept.id}/fork`, { body: { name: "fork" } })
  await untilHandedBack(stack, 4)

  expect([verification.status, compression.status, deletion.status]).toEqual([202, 202, 204])
  expect([fork.status, fork.body.code]).toEqual([503, "storage_unavailable"])
  expect(fork.headers.get("x-should-retry")).toBe("true")
  expect((await stack.ask("GET", `/snapshots/${made.id}`)).body.status).toBe("queued")
  for (const { id } of [kept, raw]) {
    const { body } = await stack.ask("GET", `/snapshots/${id}`)
    expect(body).toMatchObject({ status: "ready" })
    expect(body).not.toHaveProperty("corrupted_at")
  }
  await expect.poll(ready, { timeout: 10_000 }).toBe(503)
  const problems = async () => (await stack.ask("GET", "/ready", { claims: null })).body.problems
  // The pool's worker may notice later than the host.
  await expect.poll(problems, { timeout: 10_000 }).toContainEqual({
    where: `pool pool-${stack.clusterId}`,
    code: "storage_unavailable",
    message: expect.stringContaining("Mount"),
  })
  expect(await readdir(stack.storageDir)).toEqual([])

  await bringBack()

  await expect.poll(ready, { timeout: 20_000 }).toBe(200)
  const compressed = await stack.settled(raw.id)
  expect(compressed.compression_state).toBe("compressed")
  const captures = await stack.until(async () => {
    const { body } = await stack.ask("GET", `/snapshots/${made.id}`)
    return body.status === "queued" || body.status === "capturing" ? undefined : body
  })
  expect(captures.status).toBe("ready")
  const snapshots = join(stack.storageDir, "snapshots")
  await untilTrue(snapshots, async () => !(await readdir(snapshots)).includes(gone.id))
  const verified = async (): Promise<object> => (await stack.ask("GET", `/snapshots/${kept.id}`)).body
  await expect.poll(verified, { timeout: 20_000 }).toHaveProperty("verified_at")
  expect(await verified()).not.toHaveProperty("corrupted_at")
  const tries = await stack.db.selectFrom("operations").select(["kind", "attempt"]).execute()
  expect(tries.filter(({ attempt }) => attempt !== 1)).toEqual([])
})

test("a capture that was asked for before its host got another pool is known to lie in that", async () => {
  await using stack = await testStack()
  const worker = await stack.startCaptureWorker()
  const vm = await stack.launch("vm")
  await worker[Symbol.asyncDispose]()
  const { id } = await stack.snapshot(vm)

  await stack.startCaptureWorker({ pool: "other", storageDir: `${stack.storageDir}-other` })

  expect((await stack.settled(id)).status).toBe("ready")
  const rows = stack.db.selectFrom("snapshots").select("pool")
  expect(await rows.execute()).toEqual([{ pool: "other" }])
  expect(await readdir(join(`${stack.storageDir}-other`, "snapshots"))).toEqual([id])
})
