import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { SettingsError, type Env } from "@stillframe/runtime/env"
import { createLogger } from "@stillframe/runtime/logger"
import { expect, test } from "vitest"
import { assertSettings } from "./settings.ts"
import { startStack } from "./stack.ts"

function mistakes(env: Env): readonly string[] {
  try {
    assertSettings(env)
    return []
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    return error.message.split("\n")
  }
}

test("nothing has to be set, and any free port may be asked for", () => {
  expect(mistakes({})).toEqual([])
  expect(mistakes({ PORT: "0" })).toEqual([])
})

test("the mistakes of all four roles are one refusal, a line for each setting, with no secret's value", () => {
  const lines = mistakes({
    DATABASE_URL: "postgres://user:hidden@[host/db",
    DATABASE_CONNECTIONS: "one",
    REDIS_URL: "http://:hidden@cache",
    JWT_SECRET: "hidden",
    JWT_REVOKED_FILE: "/nowhere/revoked",
    DATA_DIR: "/srv/a,b",
    LOG_LEVEL: "loud",
    PORT: "70000",
    COMPRESSION_ALGORITHM: "gzip",
    WEBHOOK_ALLOWED_CIDRS: "everywhere",
    EVENT_RETENTION: "0",
    SCRUB_DAYS: "never",
    COMPRESSION_THREADS: "0",
    HOST_NAME: "Not A Name",
    HOST_PATHS: "images",
    QEMU_BINARY: "/nowhere/qemu",
    CAPTURE_STAGING: "shm",
    DISK_OVERCOMMIT: "0.5",
  })

  expect(lines.map((line) => /^ {2}([A-Z_]+): ./.exec(line)?.[1])).toEqual([
    undefined,
    "SECRETS_KEY",
    "DATABASE_URL",
    "DATABASE_CONNECTIONS",
    "REDIS_URL",
    "LOG_LEVEL",
    "JWT_SECRET",
    "WEBHOOK_ALLOWED_CIDRS",
    "JWT_REVOKED_FILE",
    "PORT",
    "COMPRESSION_ALGORITHM",
    "EVENT_RETENTION",
    "DATA_DIR",
    "HOST_NAME",
    "COMPRESSION_THREADS",
    "SCRUB_DAYS",
    "HOST_PATHS",
    "CAPTURE_STAGING",
    "DISK_OVERCOMMIT",
    "QEMU_BINARY",
  ])
  expect(lines.join("\n")).not.toContain("hidden")
})

test("a database of others needs their secrets, and that is told with every other mistake", () => {
  const lines = mistakes({ DATABASE_URL: "postgres://db.example/app", STOP_GRACE: "99" }).join("\n")

  expect(lines).toMatch(
    /JWT_SECRET: must be set where DATABASE_URL is[^]*SECRETS_KEY: must[^]*STOP_GRACE: must/,
  )
})

test("a start with mistakes lists them and makes nothing", async () => {
  const env = { DATA_DIR: "/proc/nothing-is-made-here", PORT: "70000", STOP_GRACE: "99" }
  const starting = startStack(env, createLogger({ service: "test", level: "silent" }))

  await expect(starting).rejects.toThrow(/PORT: must[^]*STOP_GRACE: must/)
})

test("a start lists every directory that can't be used, but one in the other once, and makes nothing", async () => {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-start-"))
  const [data, pool] = [join(dir, "data"), join(dir, "pool")]
  const said = async (env: Env): Promise<string> => {
    const starting = startStack({ PORT: "0", ...env }, createLogger({ service: "test", level: "silent" }))
    return starting.then(
      () => "started",
      (error: Error) => error.message.replaceAll(dir, ""),
    )
  }
  const noDirectory = "can't be used: it, or a part of its path, is not a directory; name a directory"
  try {
    await Promise.all([writeFile(data, ""), writeFile(pool, "")])

    expect(await said({ DATA_DIR: data, STORAGE_DIR: pool })).toBe(
      `directories that can't be used:\n  DATA_DIR: /data ${noDirectory}\n  STORAGE_DIR: /pool ${noDirectory}`,
    )
    expect(await said({ DATA_DIR: data })).toBe(`DATA_DIR: /data ${noDirectory}`)
    expect((await readdir(dir)).toSorted()).toEqual(["data", "pool"])
  } finally {
    await rm(dir, { recursive: true })
  }
})
