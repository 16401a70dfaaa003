import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { startApi } from "@stillframe/api/start"
import { createLogger } from "@stillframe/runtime/logger"
import { testDatabase } from "@stillframe/testing/database"
import { scratchFolder } from "@stillframe/testing/scratch"
import { expect, test } from "vitest"
import { readEvents } from "./event-reader.ts"
import { jwtSecret, request, secretsKey } from "./test-api.ts"

async function folder() {
  const path = await scratchFolder("stillframe-tokens-")
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) }
}

function settings(databaseUrl: string) {
  const config = { databaseUrl, databaseDirectUrl: databaseUrl, listenHost: "127.0.0.1", port: 0 }
  const times = { twinWaitMs: 500, streamHeartbeatMs: 15_000 }
  const behaviour = {
    compression: { enabled: false },
    snapshotCreate: "async",
    webhookAllowedCidrs: [],
  } as const
  return { ...config, ...times, ...behaviour, jwtSecret, secretsKey }
}

test("revoked ids are read from a file, again when it changes, and the start counts endless tokens of before", async () => {
  await using dir = await folder()
  await using database = await testDatabase()
  const jwtRevokedFile = join(dir.path, "revoked")
  const lines: string[] = []
  const start = () => {
    const log = createLogger({
      service: "test",
      level: "warn",
      destination: { write: (line) => void lines.push(line) },
    })
    return startApi({ ...settings(database.url), jwtRevokedFile }, log)
  }
  await expect(start()).rejects.toThrow("JWT_REVOKED_FILE cannot be read")
  await writeFile(jwtRevokedFile, "# none yet\n")
  const first = await start()
  const ask = (jti: string) => request(first.url, "GET", "/snapshots", { claims: { jti } })
  expect((await ask("a")).status).toBe(200)
  expect((await ask("b")).status).toBe(200)

  await writeFile(jwtRevokedFile, "# left the team\na # laptop\n")

  await expect.poll(async () => (await ask("a")).status).toBe(401)
  expect((await ask("b")).status).toBe(200)
  await first[Symbol.asyncDispose]()
  expect(lines.filter((line) => line.includes('"different":2'))).toHaveLength(1)
  await using _second = await start()
  expect(lines.filter((line) => line.includes('"different":2'))).toHaveLength(2)
  expect(lines.join("")).not.toMatch(/ey[\w-]+\.[\w-]+\./)
})

test("a revocation ends the token's event streams, and no others", async () => {
  await using dir = await folder()
  await using database = await testDatabase()
  const jwtRevokedFile = join(dir.path, "revoked")
  await writeFile(jwtRevokedFile, "")
  const log = createLogger({ service: "test", level: "silent" })
  await using api = await startApi({ ...settings(database.url), jwtRevokedFile }, log)
  const follow = (jti: string) => readEvents({ api }, "", { claims: { jti } })
  await using revoked = await follow("a")
  await using other = await follow("b")
  const comments = async (): Promise<string[]> => {
    const seen: string[] = []
    for (let frame = await revoked.next(); frame !== undefined; frame = await revoked.next())
      if (frame.comment !== undefined) seen.push(frame.comment)
    return seen
  }

  await writeFile(jwtRevokedFile, "a\n")

  expect(await comments()).toEqual(["the token was revoked"])
  expect(revoked.response.complete).toBe(true)
  expect(other.response.complete).toBe(false)
  const late = await request(api.url, "GET", "/events/stream", { claims: { jti: "a" } })
  expect([late.status, late.body.message]).toEqual([401, expect.stringContaining("token revoked")])
})
