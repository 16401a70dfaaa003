import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"
import { secretsKey } from "./dispatchers.ts"

const main = fileURLToPath(import.meta.resolve("@stillframe/dispatcher/main"))

function startProcess(env: Record<string, string>) {
  const child = spawn(process.execPath, [main], { env, stdio: ["ignore", "ignore", "pipe"] })
  const ended = once(child, "exit") as Promise<[number | null, string | null]>
  return { child, ended, lines: createInterface(child.stderr) }
}

test("a dispatcher that gets SIGTERM gives back what it holds and ends with status 0", async () => {
  await using database = await testDatabase()
  const { child, ended, lines } = startProcess({ DATABASE_URL: database.url, SECRETS_KEY: secretsKey })

  const messages: string[] = []
  for await (const line of lines) {
    const { msg } = JSON.parse(line) as { msg: string }
    messages.push(msg)
    if (msg === "started") child.kill("SIGTERM")
  }

  expect(await ended).toEqual([0, null])
  expect(messages).toEqual(["started", "stopping"])
})

test("a dispatcher with settings it can't use says all that is wrong and ends with status 1", async () => {
  const { ended, lines } = startProcess({ WEBHOOK_ALLOWED_CIDRS: "everything" })

  let written = ""
  for await (const line of lines) written += line

  expect((await ended)[0]).toBe(1)
  for (const name of ["DATABASE_URL", "SECRETS_KEY", "WEBHOOK_ALLOWED_CIDRS"]) expect(written).toContain(name)
})
