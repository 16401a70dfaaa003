import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { startApi } from "@stillframe/api/start"
import { createLogger } from "@stillframe/runtime/logger"
import { testDatabase } from "@stillframe/testing/database"
import { scratchFolder } from "@stillframe/testing/scratch"
import { expect, test } from "vitest"
import { jwtSecret, request, secretsKey } from "./test-api.ts"

test("revoked ids are read from a file, again when it changes, and the start counts endless tokens of before", async () => {
  await using opened = new AsyncDisposableStack()
  const dir = await scratchFolder("stillframe-tokens-")
  opened.defer(() => rm(dir, { recursive: true }))
  const { url } = opened.use(await testDatabase())
  const jwtRevokedFile = join(dir, "revoked")
  const lines: string[] = []
  const start = () => {
    const log = createLogger({
      service: "test",
      level: "warn",
      destination: { write: (line) => void lines.push(line) },
    })
    const config = { databaseUrl: url, databaseDirectUrl: url, listenHost: "127.0.0.1", port: 0 }
    const times = { twinWaitMs: 500, streamHeartbeatMs: 15_000 }
    const behaviour = {
      compression: { enabled: false },
      snapshotCreate: "async",
      webhookAllowedCidrs: [],
    } as const
    return startApi({ ...config, ...times, ...behaviour, jwtSecret, secretsKey, jwtRevokedFile }, log)
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
