import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { authenticator } from "@stillframe/api/access/auth"
import { decodeJwt } from "jose"
import { afterEach, beforeEach, describe, expect, test } from "vitest"

const JWT_SECRET = "0123456789abcdef0123456789abcdef"
const main = join(import.meta.dirname, "main.ts")

function token(args: string[], env: Record<string, string> = { JWT_SECRET }): ReturnType<typeof spawnSync> {
  return spawnSync(process.execPath, [main, "token", ...args], { env, encoding: "utf8" })
}

async function bearerOf(printed: string | Buffer): ReturnType<ReturnType<typeof authenticator>> {
  return authenticator(JWT_SECRET)(`Bearer ${printed.toString().trim()}`)
}

test("what it prints is a token that the API takes, for a day and everything", async () => {
  const { stdout } = token([])

  expect((await bearerOf(stdout)).allows("snapshot:delete")).toBe(true)
  const { exp = 0, iat = 0, sub } = decodeJwt(stdout.toString().trim())
  expect([exp - iat, sub]).toEqual([24 * 3_600, "local"])
})

test("it may be for certain scopes, a time and a name", async () => {
  const args = ["--scope", "snapshot:read", "--scope", "event:read", "--expires", "1h30m", "--subject", "ci"]
  const { stdout } = token(args)

  const bearer = await bearerOf(stdout)
  expect(bearer.allows("snapshot:read")).toBe(true)
  expect(bearer.allows("event:read")).toBe(true)
  expect(bearer.allows("snapshot:write")).toBe(false)
  const { exp = 0, iat = 0, sub } = decodeJwt(stdout.toString().trim())
  expect([exp - iat, sub]).toEqual([5_400, "ci"])
})

test("beside the token it says what the scopes allow in the end", () => {
  const { stdout, stderr } = token(["--scope", "snapshot:write", "--scope", "snapshot:create"])

  expect(stdout).toMatch(/^[\w.-]+\n$/)
  expect(stderr).toMatch(/^ {2}snapshot:create: .*Cannot fork/m)
  expect(stderr).toMatch(/^ {2}snapshot:write: .*starts new VMs from any snapshot/m)
  expect(token([]).stderr).toMatch(/every call/)
})

test.each([
  [
    ["--scope", "snapshot:reed"],
    /^there is no scope "snapshot:reed"; use one or more of snapshot:read, .*\n$/,
  ],
  [
    ["--expires", "12"],
    /^--expires 12 must be a number with a unit \(s, m or h\) and at least 1s, such as 90s, 15m or 24h\n$/,
  ],
  [["--expires", "tomorrow"], /^--expires tomorrow must be a number with a unit/],
  [["--expires", "0"], /^--expires 0 must be .+ at least 1s/],
])("%j is refused with what would be right", (args, message) => {
  const { status, stderr } = token(args)

  expect(status).toBe(1)
  expect(stderr).toMatch(message)
})

test("a secret that is too short is refused by the name of its variable", () => {
  const { status, stderr } = token([], { JWT_SECRET: "short" })

  expect(status).toBe(1)
  expect(stderr).toMatch(/^settings that can't be used:\n {2}JWT_SECRET: is too short: it must be .*\n$/)
})

describe("beside a DATA_DIR that npm start made", () => {
  const made = "fedcba9876543210fedcba9876543210"
  let dataDir: string
  beforeEach(() => {
    dataDir = mkdtempSync(join(tmpdir(), "stillframe-token-"))
    writeFileSync(join(dataDir, "jwt-secret"), made, { mode: 0o600 })
  })
  afterEach(() => rmSync(dataDir, { recursive: true }))

  test("it signs with the secret in there, and says so", async () => {
    const { stdout, stderr } = token([], { DATA_DIR: dataDir })

    const bearer = await authenticator(made)(`Bearer ${stdout.toString().trim()}`)
    expect(bearer.allows("snapshot:delete")).toBe(true)
    expect(stderr).toMatch(`signed with ${join(dataDir, "jwt-secret")}.`)
  })

  test("JWT_SECRET comes first, as it does for npm start", async () => {
    const { stdout, stderr } = token([], { DATA_DIR: dataDir, JWT_SECRET })

    expect((await bearerOf(stdout)).allows("snapshot:delete")).toBe(true)
    expect(stderr).toMatch("signed with JWT_SECRET of the environment.")
  })

  test("with DATABASE_URL, npm start does not use that secret, and neither does it", () => {
    const { status, stderr } = token([], { DATA_DIR: dataDir, DATABASE_URL: "postgres://localhost/x" })

    expect(status).toBe(1)
    expect(stderr).toMatch(/JWT_SECRET: must be set/)
  })
})

test("a directory without a secret gets none, and the refusal names the variable", () => {
  const { status, stderr } = token([], { DATA_DIR: join(tmpdir(), "stillframe-never-made") })

  expect(status).toBe(1)
  expect(stderr).toMatch(/JWT_SECRET: must be set/)
})
