import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { Webhook } from "standardwebhooks"
import { afterEach, beforeEach, expect, test } from "vitest"

const main = join(import.meta.dirname, "../main.ts")
const secret = `whsec_${Buffer.from("thirty-two bytes of test secret!").toString("base64")}`
const event = {
  id: "evt",
  sequence: 7,
  type: "snapshot.completed",
  occurred_at: "2026-01-01T00:00:00.000Z",
  subject: { kind: "snapshot", id: "abcdefghijklmnopqrstuvwx" },
  data: { name: "nächtlich" },
}

let running: AsyncDisposableStack
beforeEach(() => {
  running = new AsyncDisposableStack()
})
afterEach(() => running.disposeAsync())

/** The verb as a process of its own: what it has printed so far, and how it ends. */
function listen(args: string[], env: Record<string, string> = { STILLFRAME_WEBHOOK_SECRET: secret }) {
  const child = spawn(process.execPath, [main, "webhook", "listen", ...args], { env })
  const ended = once(child, "close") as Promise<[number | null, string | null]>
  running.defer(async () => {
    child.kill("SIGKILL")
    await ended
  })
  const printed: string[] = []
  const said: string[] = []
  createInterface(child.stdout).on("line", (line) => printed.push(line))
  createInterface(child.stderr).on("line", (line) => said.push(line))
  return {
    printed,
    said,
    ended,
    interrupt: () => child.kill("SIGINT"),
    async url(): Promise<string> {
      await expect.poll(() => said.join("\n"), { timeout: 10_000 }).toMatch(/http:/)
      return /http:\S+\//.exec(said.join("\n"))?.[0] ?? ""
    },
  }
}

async function post(
  url: string,
  body: string,
  { key = secret, sentAt = new Date() }: { key?: string; sentAt?: Date } = {},
): Promise<number> {
  const headers = {
    "webhook-id": "evt",
    "webhook-timestamp": String(Math.floor(sentAt.getTime() / 1_000)),
    "webhook-signature": new Webhook(key).sign("evt", sentAt, body),
  }
  return (await fetch(url, { method: "POST", headers, body })).status
}

test("a delivery with a good signature is a line of what came, and Ctrl-C ends it", async () => {
  const verb = listen(["--port", "0"])

  expect(await post(await verb.url(), JSON.stringify(event))).toBe(204)
  await expect.poll(() => verb.printed).toHaveLength(1)
  verb.interrupt()

  expect(await verb.ended).toEqual([0, null])
  expect(verb.printed[0]).toMatch(
    /^\d{4}-\d\d-\d\dT\S+Z snapshot\.completed +abcdefghijklmnopqrstuvwx +7 +verified$/,
  )
})

test("with --json it is the event as it was sent, one line each, and what is refused is not among them", async () => {
  const verb = listen(["--port", "0", "--json"])
  const url = await verb.url()

  await post(url, JSON.stringify(event), { key: "whsec_bm90IHRoZSBzYW1lIGtleSBhdCBhbGw=" })
  await post(url, JSON.stringify(event, undefined, 2))
  await expect.poll(() => verb.printed).toHaveLength(1)

  expect(JSON.parse(verb.printed[0] ?? "")).toEqual(event)
  expect(verb.said.join("\n")).toContain("REFUSED")
})

test("what is not ours is answered 401 and shown with the reason, its text only as far as it has our form", async () => {
  const verb = listen(["--port", "0"])
  const url = await verb.url()
  const other = { key: "whsec_bm90IHRoZSBzYW1lIGtleSBhdCBhbGw=" }
  const old = { sentAt: new Date(Date.now() - 6 * 60_000) }

  expect(await post(url, JSON.stringify(event), other)).toBe(401)
  expect(await post(url, JSON.stringify(event), old)).toBe(401)
  expect(await post(url, JSON.stringify({ ...event, type: "\u001B[2Jall gone" }), other)).toBe(401)
  expect((await fetch(url, { method: "POST", body: "{}" })).status).toBe(401)

  await expect.poll(() => verb.printed).toHaveLength(4)
  expect(verb.printed[0]).toMatch(/snapshot\.completed .* 7 +REFUSED: No matching signature found$/)
  expect(verb.printed[1]).toMatch(/REFUSED: Message timestamp too old$/)
  expect(verb.printed[2]).toMatch(/Z - +- +- +REFUSED/)
  expect(verb.printed[3]).toMatch(/REFUSED: Missing required headers$/)
})

test("a body larger than 1 MiB is not kept, and the next one is received", async () => {
  const verb = listen(["--port", "0"])
  const url = await verb.url()

  expect(await post(url, "x".repeat(1024 ** 2 + 1))).toBe(413)
  expect(await post(url, JSON.stringify(event))).toBe(204)
})

test("a port that is taken is said, with what can be done", async () => {
  const port = new URL(await listen(["--port", "0"]).url()).port

  const second = listen(["--port", port])

  expect(await second.ended).toEqual([1, null])
  expect(second.said).toEqual([`port ${port} is in use; name another with --port`])
})

test.each([
  [[], {}, /^set STILLFRAME_WEBHOOK_SECRET .* or give --create/],
  [["--secret", "whsec_!"], {}, /^the secret must be as the API showed it/],
  [["--port", "65536"], { STILLFRAME_WEBHOOK_SECRET: secret }, /^--port 65536 must be/],
  [
    ["--types", "snapshot.*"],
    { STILLFRAME_WEBHOOK_SECRET: secret },
    /^--types is for the webhook that --create/,
  ],
  [["--create", "--secret", secret], {}, /^--create makes a webhook with a secret of its own/],
  [
    ["--create", "--types", "snapshot.complete"],
    {},
    /^there is no event type "snapshot.complete"; use one or/,
  ],
  [["--create"], {}, /STILLFRAME_TOKEN: must be a token/],
  [
    ["--create", "--port", "0"],
    { STILLFRAME_TOKEN: "t", STILLFRAME_URL: "http://127.0.0.1:1" },
    /^http:\/\/127.0.0.1:1 can't be reached; is Stillframe running there\?$/,
  ],
])("%j is refused with what would be right", async (args, env, message) => {
  const verb = listen(args, env)

  expect(await verb.ended).toEqual([1, null])
  expect(verb.said.join("\n")).toMatch(message)
  expect(verb.said.join("\n")).not.toContain("whsec_!")
})
