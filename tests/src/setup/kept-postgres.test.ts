import { execFile } from "node:child_process"
import { open, readFile, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { removeEmbeddedPostgres } from "@stillframe/embedded-postgres/cluster"
import { type EmbeddedPostgres, startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { makeCluster, type MadeCluster } from "@stillframe/testing/made-cluster"
import { scratchFolder } from "@stillframe/testing/scratch"
import pg from "pg"
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi, type TestContext } from "vitest"

const run = promisify(execFile)
const mib = 1024 ** 2

let made: MadeCluster
let dir: string
let lines: { readonly message: string; readonly fields: object }[]

beforeAll(async () => {
  made = await makeCluster("secret")
})

afterAll(() => made[Symbol.asyncDispose]())

beforeEach(async () => {
  dir = await scratchFolder("stillframe-kept-")
  lines = []
})

afterEach(async () => {
  await rm(dir, { recursive: true })
})

test("a postgres that was killed is started again on the same port, with one line for each of both", async () => {
  await using postgres = await startKept(dir)
  await query(postgres, "create table kept (word text); insert into kept values ('yes')")
  const { pid, url } = postgres

  process.kill(pid, "SIGKILL")

  await expect
    .poll(() => query(postgres, "select word from kept").catch(() => undefined))
    .toEqual([{ word: "yes" }])
  await expect.poll(() => lines.length).toBe(2)
  expect(postgres.url).toBe(url)
  expect(postgres.pid).not.toBe(pid)
  expect(lines).toEqual([
    { message: "the embedded postgres ended by itself; starting it again", fields: { reason: "SIGKILL" } },
    { message: "the embedded postgres runs again", fields: expect.objectContaining({ pid: postgres.pid }) },
  ])
})

test("postgres has none of our settings and secrets in its environment", async () => {
  vi.stubEnv("JWT_SECRET", "a secret that postgres has no use for")
  try {
    await using postgres = await startKept(dir)

    expect(await readFile(`/proc/${postgres.pid}/environ`, "utf8")).toMatch(/(^|\0)PATH=/)
    expect(await readFile(`/proc/${postgres.pid}/environ`, "utf8")).not.toContain("JWT_SECRET")
  } finally {
    vi.unstubAllEnvs()
  }
})

test("tries that fail are told once, and go on until one succeeds", async () => {
  await using postgres = await startKept(dir)
  const control = join(dir, "postgres", "global", "pg_control")
  await run("mv", [control, `${control}.away`])

  process.kill(postgres.pid, "SIGKILL")
  await expect.poll(() => lines.map(({ message }) => message)).toContain(couldNot)
  await run("mv", [`${control}.away`, control])

  await expect.poll(() => query(postgres, "select 1 as one").catch(() => undefined)).toEqual([{ one: 1 }])
  expect(lines.filter(({ message }) => message === couldNot)).toHaveLength(1)
})

test("one that is stopped while it is down stays down", async () => {
  const postgres = await startKept(dir)
  process.kill(postgres.pid, "SIGKILL")
  await expect.poll(() => lines.length).toBe(1)

  await postgres.stop()

  await expect(query(postgres, "select 1")).rejects.toThrow("ECONNREFUSED")
  expect(lines).toHaveLength(1)
})

test("one that is stopped while it is being started again ends", async () => {
  const postgres = await startKept(dir)
  const url = new URL(postgres.url)
  process.kill(postgres.pid, "SIGKILL")
  await expect
    .poll(() => query(postgres, "select 1").catch((error: Error) => error.message))
    .not.toContain("ECONN")

  await postgres.stop()

  await expect(query({ url: url.href }, "select 1")).rejects.toThrow("ECONNREFUSED")
})

test("on a full disk rows can still be deleted, nothing new is taken on, and both end when there is room", async (context) => {
  await using disk = await smallDisk(context)
  const { mount } = disk
  await using postgres = await startKept(mount)
  const reserve = join(mount, "postgres-reserve")
  await expect.poll(() => sizeOf(reserve)).toBe(64 * mib)
  await query(postgres, "create table rows (n int, filler text)")
  await query(postgres, "insert into rows select n, repeat(md5(n::text), 20) from generate_series(1, 2000) n")

  await fill(join(mount, "filler"))
  await expect.poll(() => postgres.diskProblem()?.code).toBe("insufficient_storage")
  await expect.poll(() => sizeOf(reserve)).toBe(undefined)

  await expect
    .poll(() =>
      query(postgres, "delete from rows returning n").then(
        (rows) => rows.length,
        () => undefined,
      ),
    )
    .toBe(2000)
  await query(postgres, "vacuum rows")
  await rm(join(mount, "filler"))
  await expect.poll(() => postgres.diskProblem()).toBe(undefined)
  await expect.poll(() => sizeOf(reserve)).toBe(64 * mib)
  const told = lines.filter(({ message }) => message.includes("disk"))
  expect(told).toEqual([
    {
      message: expect.stringMatching(/less than 128 MiB free: delete/),
      fields: { code: "insufficient_storage", dir: mount },
    },
    { message: "the database's disk has room again", fields: {} },
  ])
})

test("a postgres that a full disk ended runs again by itself, on the room that was kept", async (context) => {
  await using disk = await smallDisk(context)
  const { mount } = disk
  await using postgres = await startKept(mount)
  await expect.poll(() => sizeOf(join(mount, "postgres-reserve"))).toBe(64 * mib)
  await query(postgres, "create table rows (n int)")

  await fill(join(mount, "filler"))
  process.kill(postgres.pid, "SIGKILL")

  await expect
    .poll(() => query(postgres, "insert into rows values (1) returning n").catch(() => undefined))
    .toEqual([{ n: 1 }])
})

const couldNot = "the embedded postgres could not be started again; trying on"

async function startKept(dataDir: string): Promise<EmbeddedPostgres> {
  await made.copyTo(join(dataDir, "postgres"))
  const note = (fields: object, message: string): void => void lines.push({ message, fields })
  const log = { info: note, warn: note, error: note }
  return startEmbeddedPostgres({
    dataDir: join(dataDir, "postgres"),
    password: "secret",
    logFile: join(dir, "postgres.log"),
    keep: { log },
  })
}

/** A file system of 400 MB; skips the test, with the reason, where none can be mounted. */
async function smallDisk({ skip }: TestContext): Promise<AsyncDisposable & { readonly mount: string }> {
  const mount = join(dir, "disk")
  await run("mkdir", [mount])
  await run("mount", ["-t", "tmpfs", "-o", "size=400m", "tmpfs", mount]).catch((error: Error) =>
    skip(`no small disk can be mounted here: ${error.message}`),
  )
  return {
    mount,
    async [Symbol.asyncDispose]() {
      await removeEmbeddedPostgres(join(mount, "postgres"))
      await run("umount", [mount])
    },
  }
}

/** Writes until the disk has no room at all. */
async function fill(path: string): Promise<void> {
  await using file = await open(path, "w")
  for (const bytes of [mib, 4_096]) {
    const chunk = Buffer.alloc(bytes)
    for (;;) {
      const written = await file.write(chunk).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "ENOSPC") throw error
      })
      if (written?.bytesWritten !== bytes) break
    }
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  return (await stat(path).catch(() => undefined))?.size
}

async function query(postgres: { url: string }, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: postgres.url, connectionTimeoutMillis: 2_000 })
  client.on("error", () => {
    // The query that needs it rejects.
  })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows
  } finally {
    await client.end()
  }
}
