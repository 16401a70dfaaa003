import { execFile } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { open, readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest"
import { qemu } from "../hypervisors/test-vm.ts"
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

test("no child of a worker has the worker's settings or secrets in its environment", async () => {
  await using stack = await testStack()
  const secret = randomBytes(16).toString("hex")
  const { child: worker } = await stack.spawn("capture-worker", {
    JWT_SECRET: secret,
    SECRETS_KEY: secret,
    QEMU_BINARY: await tellingProgram(stack.dataDir, "qemu-system", qemu.binary),
    QEMU_IMG: await tellingProgram(stack.dataDir, "qemu-img", qemu.qemuImg),
  })
  const vm = await stack.launch("source")
  await stack.settled((await stack.snapshot(vm)).id)

  const told = await readFile(join(stack.dataDir, "told"), "utf8")
  expect(told).toMatch(/^PATH=/m)
  expect(told).not.toMatch(/^(JWT_SECRET|SECRETS_KEY|DATABASE_URL|REDIS_URL)=/m)
  const running = await processes()
  const knowing = running.filter(({ environ }) => environ.includes(secret))
  expect(knowing.map(({ pid }) => pid)).toEqual([worker.pid])
  for (const kind of ["executor/main.ts", "log-keeper.ts", vm.id])
    expect(running.some(({ cmdline }) => cmdline.includes(kind))).toBe(true)
})

test("a worker without file descriptors says so, leaves nothing half made, and launches again once there are some", async () => {
  await using stack = await testStack()
  const { child: worker } = await stack.spawn("capture-worker")
  const pid = worker.pid ?? 0
  const launch = (name: string) =>
    stack.ask("POST", "/instances", { body: { name, launch: { image: "heartbeat" } } })
  await endSpareCaptor(pid)
  await limitDescriptors(pid, await oneIsLeft(pid))

  const { status, body } = await launch("without")

  expect([status, body.message]).toEqual([409, expect.stringMatching(/no file descriptor left.*ulimit -n/)])
  expect((await stack.ask("GET", "/instances")).body).toEqual([])
  expect(await readdir(join(stack.dataDir, "instances")).catch(() => [])).toEqual([])
  await limitDescriptors(pid, 1_024)
  expect((await launch("with")).body.state).toBe("Running")
})

/** The limit at which a process can open one file more: not enough for a child with a channel. */
async function oneIsLeft(pid: number): Promise<number> {
  const open = new Set((await readdir(`/proc/${pid}/fd`)).map(Number))
  let limit = 0
  for (let free = 0; free < 2; limit += 1) if (!open.has(limit)) free += 1
  return limit - 1
}

function limitDescriptors(pid: number, limit: number): Promise<unknown> {
  return promisify(execFile)("prlimit", [`--pid=${pid}`, `--nofile=${limit}:`])
}

/** It was started while there were descriptors, and would take the next order. */
async function endSpareCaptor(worker: number): Promise<void> {
  const spares = async () =>
    (await processes()).filter(
      ({ cmdline, parent }) => parent === worker && cmdline.includes("executor/main.ts"),
    )
  for (const { pid } of await spares()) process.kill(pid, "SIGKILL")
  await expect.poll(spares).toEqual([])
}

/** A program that writes its environment to `told` and then becomes another. */
async function tellingProgram(dir: string, name: string, program: string): Promise<string> {
  const file = join(dir, name)
  await writeFile(join(dir, "told"), "", { flag: "a", mode: 0o666 })
  const script = `#!/bin/sh\ntr '\\0' '\\n' </proc/$$/environ >>${join(dir, "told")}\nexec ${program} "$@"\n`
  await writeFile(file, script, { mode: 0o755 })
  return file
}

/** All that this user may look at. */
async function processes(): Promise<{ pid: number; parent: number; cmdline: string; environ: string }[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const read = (pid: string, file: string) => readFile(`/proc/${pid}/${file}`, "utf8").catch(() => "")
  return Promise.all(
    pids.map(async (pid) => ({
      pid: Number(pid),
      parent: Number(/^PPid:\s+(\d+)/m.exec(await read(pid, "status"))?.[1]),
      cmdline: await read(pid, "cmdline"),
      environ: await read(pid, "environ"),
    })),
  )
}

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
