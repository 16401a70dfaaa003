import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { expect, test } from "vitest"
import { testDispatcher } from "../dispatcher/dispatchers.ts"
import { happen, secretsKey, testApi, token } from "./test-api.ts"

const main = fileURLToPath(import.meta.resolve("@stillframe/stillframe/main"))

test("webhook listen --create has its own events sent to it, and leaves no webhook behind", async () => {
  await using api = await testApi()
  await using _dispatcher = await testDispatcher({ databaseUrl: api.databaseUrl, secretsKey })
  const args = [main, "webhook", "listen", "--create", "--port", "0", "--types", "snapshot.*"]
  const env = { STILLFRAME_URL: api.api.url, STILLFRAME_TOKEN: `${token({})}\n` }
  const child = spawn(process.execPath, args, { env, stdio: ["ignore", "pipe", "pipe"] })
  const ended = once(child, "close")
  const printed: string[] = []
  createInterface(child.stdout).on("line", (line) => printed.push(line))

  // What it says once it listens and its webhook is there.
  await once(createInterface(child.stderr), "line")
  expect((await api.ask("GET", "/webhooks")).body).toMatchObject([{ event_types: ["snapshot.*"] }])
  await happen(api, 1)
  await expect.poll(() => printed).toHaveLength(1)
  child.kill("SIGINT")

  expect(await ended).toEqual([0, null])
  expect(printed[0]).toMatch(/ snapshot\.created .* 1 +verified$/)
  expect((await api.ask("GET", "/webhooks")).body).toEqual([])
})
