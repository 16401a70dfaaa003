import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { removeEmbeddedPostgres } from "@stillframe/embedded-postgres/cluster"
import {
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
  startEmbeddedPostgres,
} from "@stillframe/embedded-postgres/start"
import { makeCluster, type MadeCluster } from "@stillframe/testing/made-cluster"
import { patienceMs } from "@stillframe/testing/patience"
import { scratchFolder } from "@stillframe/testing/scratch"
import pg from "pg"
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest"

let made: MadeCluster
let dir: string
let dataDir: string

beforeAll(async () => {
  made = await makeCluster("secret")
})

afterAll(() => made[Symbol.asyncDispose]())

beforeEach(async () => {
  dir = await scratchFolder("stillframe-embedded-")
  dataDir = join(dir, "postgres")
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await removeEmbeddedPostgres(dataDir)
  await rm(dir, { recursive: true })
})

test("data, port and password outlive a restart", async () => {
  let firstUrl: string
  {
    await using first = await start({ password: "a/b:c@d" })
    firstUrl = first.url
    await query(first, "create table kept (word text); insert into kept values ('yes')")
  }

  await using again = await start({ password: "a/b:c@d" })

  expect(again.url).toBe(firstUrl)
  expect(await query(again, "select word from kept")).toEqual([{ word: "yes" }])
})

test("the port of the last start is given up when somebody else has it", async () => {
  await made.copyTo(dataDir)
  const taken = createServer().listen(made.port, "127.0.0.1")
  await once(taken, "listening")

  await using again = await start()

  expect(new URL(again.url).port).not.toBe(String(made.port))
  taken.close()
})

test("a second start on the same data names the process of the first", async () => {
  await made.copyTo(dataDir)
  await using first = await start()

  await expect(start()).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining(` ${first.pid}:`),
  })
})

test("two first starts at once leave one running and one refused", async () => {
  const starts = await Promise.allSettled([start(), startElsewhere()])

  const started = starts.filter((result) => result.status === "fulfilled")
  const refused = starts.filter((result) => result.status === "rejected")
  for (const { value } of started) await value.stop()
  expect(refused.map(({ reason }) => String(reason))).toEqual([
    expect.stringContaining("is in use by process"),
  ])
  expect(started).toHaveLength(1)
  expect((await readdir(dir)).filter((name) => name.includes(".new-"))).toEqual([])
})

test("a start that somebody else's port or data fail for a moment is made again", async () => {
  await made.copyTo(dataDir)
  const bin = join(dir, "bin")
  await mkdir(bin)
  const once = join(dir, "once")
  const failing = `case "$*" in *"/postgres -D"*) [ -e ${once} ] || { touch ${once}; exit 1; };; esac`
  await writeFile(join(bin, "setpriv"), `#!/bin/sh\n${failing}\nexec /usr/bin/setpriv "$@"\n`, {
    mode: 0o755,
  })
  vi.stubEnv("PATH", `${bin}:/usr/bin:/bin`)

  await using postgres = await start()

  expect(await readdir(dir)).toContain("once")
  expect(await query(postgres, "select 1 as one")).toEqual([{ one: 1 }])
})

test("data of another major version are refused with the way out", async () => {
  await mkdir(dataDir)
  await writeFile(join(dataDir, "PG_VERSION"), "13\n")

  await expect(start()).rejects.toMatchObject({
    code: "not_supported",
    message: expect.stringContaining("the release of Stillframe that made it"),
  })
})

test("another password than the first one is said to be wrong", async () => {
  await made.copyTo(dataDir)

  await expect(start({ password: "another" })).rejects.toThrow("password is not the one")
})

test("a folder with foreign files is left alone", async () => {
  await mkdir(dataDir)
  await writeFile(join(dataDir, "letter.txt"), "mine")

  await expect(start()).rejects.toMatchObject({ code: "conflict" })

  expect(await readFile(join(dataDir, "letter.txt"), "utf8")).toBe("mine")
})

test("a pid file left by a crash does not stop the next start, even when that pid lives again as something else", async () => {
  await made.copyTo(dataDir)
  await writeFile(join(dataDir, "postmaster.pid"), `${process.pid}\n${dataDir}\n`)

  await using again = await start()

  expect(await query(again, "select 1 as one")).toEqual([{ one: 1 }])
})

test("what an operator needs is on: durability, loopback only, scram, room for every pool", async () => {
  await made.copyTo(dataDir)
  await using postgres = await start({ sync: true })
  const names = ["fsync", "synchronous_commit", "full_page_writes", "max_connections", "listen_addresses"]

  const rows = await query(
    postgres,
    `select name, setting from pg_settings where name in ('${names.join("','")}')`,
  )

  expect(Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))).toEqual({
    fsync: "on",
    synchronous_commit: "on",
    full_page_writes: "on",
    max_connections: "200",
    listen_addresses: "127.0.0.1",
  })
  const methods = await query(postgres, "select distinct auth_method from pg_hba_file_rules")
  expect(methods).toEqual([{ auth_method: "scram-sha-256" }])
  await expect(query({ url: postgres.url.replace("secret", "wrong") }, "select 1")).rejects.toThrow(
    "password",
  )
})

test("an aborted start leaves neither process nor data", async () => {
  await expect(start({ signal: AbortSignal.abort() })).rejects.toThrow("aborted")

  expect(await readdir(dir)).toEqual([])
})

test.skipIf(process.getuid?.() !== 0)(
  "root without user namespaces runs it as nobody until its parent is killed, reads its data again, and can remove them",
  async () => {
    await refuseNamespaces()
    const parent = spawnParent("postgres")
    const first = await firstLine(parent)
    expect((await stat(`/proc/${first.pid}`)).uid).toBe(65_534)
    await query(first, "create table kept (word text); insert into kept values ('yes')")
    parent.kill("SIGKILL")
    await expect.poll(() => isAlive(first.pid), { timeout: patienceMs }).toBe(false)
    // Once made, the data stay nobody's, whatever is allowed later.
    vi.unstubAllEnvs()

    await using again = await start()

    expect(await query(again, "select word from kept")).toEqual([{ word: "yes" }])
    const home = (await readFile(join(dataDir, "stillframe-location"), "utf8")).trim()
    await again.stop()
    await removeEmbeddedPostgres(dataDir)
    await expect(stat(home)).rejects.toThrow("ENOENT")
  },
)

test("redis ends when its parent is killed outright", async () => {
  const parent = spawnParent("redis")
  const { pid } = await firstLine(parent)

  parent.kill("SIGKILL")

  await expect.poll(() => isAlive(pid), { timeout: patienceMs }).toBe(false)
})

test("postgres ends when its parent is killed outright, and a start right after that waits for its end", async () => {
  await made.copyTo(dataDir)
  const parent = spawnParent("postgres")
  const { pid } = await firstLine(parent)
  parent.kill("SIGKILL")
  await once(parent, "exit")

  await using next = await start()

  await expect.poll(() => isAlive(pid), { timeout: patienceMs }).toBe(false)
  expect(await query(next, "select 1 as one")).toEqual([{ one: 1 }])
})

/** Undone after each test. */
async function refuseNamespaces(): Promise<void> {
  const refusing = join(dir, "bin")
  await mkdir(refusing)
  await writeFile(join(refusing, "unshare"), "#!/bin/sh\nexit 1\n", { mode: 0o755 })
  vi.stubEnv("PATH", `${refusing}:/usr/bin:/bin`)
}

function start(options: Partial<EmbeddedPostgresOptions> = {}): Promise<EmbeddedPostgres> {
  return startEmbeddedPostgres({ dataDir, password: "secret", sync: false, ...options })
}

/** From another process, as two stacks would. */
async function startElsewhere(): Promise<Pick<EmbeddedPostgres, "stop">> {
  const child = spawnParent("postgres")
  let said = ""
  child.stderr?.on("data", (chunk) => (said += chunk))
  const line = await Promise.race([firstLine(child), once(child, "close").then(() => undefined)])
  if (line === undefined) throw new Error(said)
  return {
    stop: async () => {
      child.kill("SIGKILL")
      await vi.waitUntil(() => !isAlive(line.pid), { timeout: patienceMs })
    },
  }
}

function spawnParent(service: string): ChildProcess {
  const script = join(import.meta.dirname, "start-and-wait.ts")
  return spawn(process.execPath, [script, service, service === "redis" ? join(dir, "redis") : dataDir])
}

async function firstLine(child: ChildProcess): Promise<{ pid: number; url: string }> {
  if (child.stdout === null) throw new Error("the parent's output is not a pipe")
  const [line] = (await once(createInterface(child.stdout), "line")) as [string]
  return JSON.parse(line) as { pid: number; url: string }
}

async function query(postgres: { url: string }, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: postgres.url })
  await client.connect()
  try {
    const result = await client.query<Record<string, unknown>>(sql)
    return result.rows
  } finally {
    await client.end()
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    // No such process.
    return false
  }
}
