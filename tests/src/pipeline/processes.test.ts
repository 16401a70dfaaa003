import { execFile } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { open, readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { expect, test, vi } from "vitest"
import { qemu } from "../hypervisors/test-vm.ts"
import { testStack, untilTrue } from "./test-stack.ts"

test.each(["api", "capture-worker", "compression-worker", "dispatcher"] as const)(
  "SIGTERM ends an idle %s with status 0",
  async (app) => {
    await using stack = await testStack()
    const { child, ended } = await stack.spawn(app)

    child.kill("SIGTERM")

    expect(await ended).toBe(0)
  },
)

test.each([
  ["SIGTERM", 0],
  ["SIGKILL", null],
] as const)(
  "%s in the middle of a compression: the next worker starts it again and finishes it",
  async (signal, status) => {
    await using stack = await testStack()
    await stack.startCaptureWorker()
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
    const memory = randomBytes(16 * 1024 ** 2)
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
    await stack.startCompressionWorker()
    const settled = await stack.settled(id)

    expect(settled).toMatchObject({ compression_state: "compressed", uncompressed_size_bytes: memory.length })
    await untilTrue(join(dir, token), async () => (await readdir(join(dir, token))).length === 3)
    expect(await readdir(join(dir, token))).not.toContain(half[0])
  },
)

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
  for (const kind of ["captor.ts", "log-keeper.ts", vm.id])
    expect(running.some(({ cmdline }) => cmdline.includes(kind))).toBe(true)
})

/** A program that writes its environment to `told` and then becomes another. */
async function tellingProgram(dir: string, name: string, program: string): Promise<string> {
  const file = join(dir, name)
  await writeFile(join(dir, "told"), "", { flag: "a", mode: 0o666 })
  const script = `#!/bin/sh\ntr '\\0' '\\n' </proc/$$/environ >>${join(dir, "told")}\nexec ${program} "$@"\n`
  await writeFile(file, script, { mode: 0o755 })
  return file
}

/** All that this user may look at. */
async function processes(): Promise<{ pid: number; cmdline: string; environ: string }[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const read = (pid: string, file: string) => readFile(`/proc/${pid}/${file}`, "utf8").catch(() => "")
  return Promise.all(
    pids.map(async (pid) => ({
      pid: Number(pid),
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
