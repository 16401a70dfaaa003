import { client } from "@stillframe/stillframe/demo/client"
import { afterAll, beforeAll, expect, test } from "vitest"
import { testApi, token, type TestApi } from "./test-api.ts"

let api: TestApi
beforeAll(async () => {
  api = await testApi()
  await api.instance("vm")
})
afterAll(() => api[Symbol.asyncDispose]())

async function ignored(method: string, path: string, body?: unknown): Promise<[number, string | null]> {
  const headers = { prefer: "respond-async" }
  const reply = await api.ask(method, path, { headers, ...(body !== undefined && { body }) })
  return [reply.status, reply.headers.get("x-ignored")]
}

test.each([
  ["a filter", "GET", "/snapshots?source=x&kind=Standby", undefined, [200, "query.source"]],
  ["a filter of a route that has none", "GET", "/instances/vm?fields=id", undefined, [200, "query.fields"]],
  ["a tag where none is asked for", "GET", "/events?tags[a]=b", undefined, [200, "query.tags"]],
  [
    "a member",
    "POST",
    "/instances/vm/snapshots?a=1",
    { kind: "Standby", compress: true },
    [202, "query.a, body.compress"],
  ],
  [
    "members inside others",
    "POST",
    "/instances",
    { name: "x", launch: { dsks: [], disks: [{ path: "/a", format: "raw", ro: true }], memory_mib: 64 } },
    [202, "body.launch.dsks, body.launch.disks[0].ro"],
  ],
  ["the whole body of a route that takes none", "POST", "/instances/vm/stop", { force: 1 }, [202, "body"]],
  ["a member beside a mistake", "POST", "/instances/vm/snapshots", { knd: "Standby" }, [400, "body.knd"]],
  [
    "a member of a request for nothing",
    "POST",
    "/instances/none/snapshots",
    { kind: "Standby", x: 1 },
    [404, "body.x"],
  ],
])(
  "%s that the API does not know is ignored, and the answer names it",
  async (_what, method, path, body, found) => {
    await api.host("h1")
    expect(await ignored(method, path, body)).toEqual(found)
  },
)

test("an answer names nothing when all is known", async () => {
  expect(await ignored("GET", "/snapshots?tags[a]=b&limit=1")).toEqual([200, null])
  const body = { kind: "Standby", tags: { anything: "goes" }, compression: { enabled: true } }
  expect(await ignored("POST", "/instances/vm/snapshots", body)).toEqual([202, null])
})

test("names are cut and cleaned: a header is short, of one line and of visible ASCII", async () => {
  const strange = { kind: "Standby", "a,b\r\nx: y\u00e4": 1, ["k".repeat(5_000)]: 1 }
  const [, named] = await ignored("POST", "/instances/vm/snapshots", strange)
  expect(named).toMatch(/^body\.a\?b\?\?x:\?y\?, body\.k{95}$/)

  const many = Object.fromEntries(Array.from({ length: 500 }, (_, index) => [`m${index}`, index]))
  const [, counted] = await ignored("POST", "/instances/vm/snapshots", { kind: "Standby", ...many })
  expect(counted?.split(", ")).toHaveLength(21)
  expect(counted).toMatch(/, \.\.\.$/)
})

test("our own client warns of what was ignored", async () => {
  const warnings: string[] = []
  const http = client({
    url: api.api.url,
    token: token({ sub: "tester" }),
    warn: (sentence) => warnings.push(sentence),
  })

  await http.request("GET", "/snapshots?source=x")
  await http.request("GET", "/snapshots?kind=Standby")

  expect(warnings).toEqual([
    "warning: GET /snapshots?source=x: the server does not know query.source and ignored it; check the spelling",
  ])
})
