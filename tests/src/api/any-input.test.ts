import fc from "fast-check"
import { expect, test } from "vitest"
import { testApi, type Ask, type TestApi } from "./test-api.ts"

const runs = { numRuns: 100 }

/**
 * What is wrong with an answer, whatever was asked. 501 is a proper one: the thing exists, but not yet here.
 */
async function mistakes(api: TestApi, method: string, path: string, ask: Ask = {}): Promise<string[]> {
  const headers = { prefer: "respond-async", ...ask.headers }
  const reply = await api.ask(method, path, { ...ask, headers })
  const { status, text } = reply
  const shown = `${method} ${path} ${JSON.stringify(ask.body)}: ${text}`
  if (status >= 500 && status !== 501) return [`${status} ${shown}`]
  if (status === 204) return []
  if (reply.headers.get("content-type")?.startsWith("application/json") !== true) return [`no JSON: ${shown}`]
  if (status < 400) return []
  const { body } = reply
  const proper = typeof body.code === "string" && typeof body.message === "string"
  return proper && !/\bat .+:\d+:\d+|node_modules/.test(text) ? [] : [`no proper error: ${shown}`]
}

const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme" }),
  fc.stringMatching(/^[a-z0-9]{1,24}$/),
  fc.constantFrom("\0", "\ud800", "__proto__", "constructor", "%", "_", "\\", "'", "null", "a".repeat(70)),
)
const segment = fc.oneof(
  text.map((value) => encodeURIComponent(value.toWellFormed())),
  fc
    .array(fc.integer({ min: 0, max: 255 }), { minLength: 1, maxLength: 8 })
    .map((bytes) => bytes.map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("")),
)

test("no id gives a 5xx", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const routes = [
    ["GET", "/snapshots/", ""],
    ["DELETE", "/snapshots/", ""],
    ["GET", "/instances/", ""],
    ["DELETE", "/instances/", ""],
    ["GET", "/webhooks/", ""],
    ["DELETE", "/webhooks/", ""],
    ["POST", "/instances/", "/snapshots"],
    ["POST", "/instances/", "/stop"],
    ["POST", "/instances/", "/start"],
    ["POST", "/instances/", "/standby"],
    ["POST", "/instances/", "/restore"],
    ["GET", "/instances/", "/wait?state=Stopped&timeout=0s"],
    ["POST", "/instances/", `/snapshots/${"a".repeat(24)}/restore`],
    ["POST", "/instances/vm/snapshots/", "/restore"],
    ["POST", "/snapshots/", "/fork"],
  ] as const

  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...routes), segment, async ([method, before, after], id) => {
      const body = method === "POST" ? { kind: "Standby", name: "a" } : undefined
      expect(await mistakes(api, method, `${before}${id}${after}`, { body })).toEqual([])
    }),
    { ...runs, examples: routes.map((route) => [route, "%00"]) },
  )
})

test("no filter gives a 5xx", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const known = fc.constantFrom(
    "kind",
    "name",
    "source_instance_id",
    "status",
    "limit",
    "cursor",
    "sort",
    "tags",
    "tags[a]",
    "after",
    "types",
    "snapshot_id",
    "instance_id",
  )
  const name = fc
    .oneof(
      known,
      text,
      text.map((key) => `tags[${key}]`),
    )
    .map((key) => encodeURIComponent(key.toWellFormed()))
  const query = fc.array(fc.tuple(name, segment), { maxLength: 4 })

  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("/snapshots", "/instances", "/webhooks", "/events"),
      query,
      async (path, pairs) => {
        expect(
          await mistakes(api, "GET", `${path}?${pairs.map((pair) => pair.join("=")).join("&")}`),
        ).toEqual([])
      },
    ),
    runs,
  )
})

test("no name, tags or compression give a 5xx", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const body = fc.record(
    {
      kind: fc.oneof(fc.constantFrom("Standby", "Stopped"), text),
      name: fc.oneof(text, fc.jsonValue()),
      tags: fc.oneof(fc.dictionary(text, text), fc.jsonValue()),
      compression: fc.oneof(
        fc.record({
          enabled: fc.boolean(),
          algorithm: fc.oneof(fc.constantFrom("zstd", "lz4"), text),
          level: fc.oneof(fc.integer({ min: -1, max: 20 }), fc.double()),
        }),
        fc.jsonValue(),
      ),
    },
    { requiredKeys: [] },
  )

  await fc.assert(
    fc.asyncProperty(body, async (value) => {
      expect(await mistakes(api, "POST", "/instances/vm/snapshots", { body: value })).toEqual([])
    }),
    runs,
  )
})

test("no body of any route gives a 5xx", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const posts = fc.constantFrom(
    "/instances",
    "/webhooks",
    "/instances/vm/snapshots",
    `/snapshots/${"a".repeat(24)}/fork`,
    `/instances/vm/snapshots/${"a".repeat(24)}/restore`,
    "/instances/vm/start",
    "/instances/vm/standby",
  )
  const almost = fc.record(
    {
      name: fc.oneof(fc.stringMatching(/^[a-z]{1,8}$/), text),
      image: fc.oneof(fc.constantFrom("demo", "heartbeat"), text),
      size: fc.oneof(fc.constantFrom("64MB", "1 GB", "9999999TB", "0"), text),
      vcpus: fc.oneof(fc.integer(), fc.double()),
      hypervisor: fc.oneof(fc.constantFrom("qemu", "vz"), text),
      launch: fc.record({ kernel: text, cmdline: text, memory_mib: fc.integer() }, { requiredKeys: [] }),
      url: fc.oneof(fc.webUrl(), text),
      description: text,
      event_types: fc.array(text),
      target_state: fc.oneof(fc.constantFrom("Running", "Standby", "Stopped"), text),
      target_hypervisor: fc.oneof(fc.constantFrom("qemu", "vz"), text),
      compression: fc.oneof(fc.constant({ enabled: true }), fc.jsonValue()),
      compression_delay: fc.oneof(fc.constantFrom("5m", "-1s", "1h30m"), text),
      instance_ids: fc.array(text),
    },
    { requiredKeys: [] },
  )
  const body = fc.oneof(almost, fc.jsonValue(), fc.json(), text)

  await fc.assert(
    fc.asyncProperty(posts, body, async (path, value) => {
      expect(await mistakes(api, "POST", path, { body: value })).toEqual([])
    }),
    runs,
  )
})
