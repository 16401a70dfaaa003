import { afterAll, beforeAll, expect, test } from "vitest"
import { testApi } from "../api/test-api.ts"
import { testStack, type TestStack } from "../pipeline/test-stack.ts"
import { captured } from "./contract-stack.ts"

let stack: TestStack
let vm: { id: string }
let both: string
let backend: string
let odd: string
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  await stack.startCompressionWorker()
  vm = await stack.launch("vm")
  both = (await captured(stack, vm.id, { name: "nightly", tags: { team: "backend", env: "staging" } })).id
  backend = (await captured(stack, vm.id, { tags: { team: "backend" } })).id
  odd = (await captured(stack, vm.id, { tags: { "a b:c/d.e=f": "g h", "0": "zero", empty: "" } })).id
})
afterAll(() => stack[Symbol.asyncDispose]())

async function ids(query: string): Promise<string[]> {
  const { status, body } = await stack.ask("GET", `/snapshots${query}`)
  expect(status, `for ${query}`).toBe(200)
  return (body as { id: string }[]).map(({ id }) => id)
}

async function queryError(query: string): Promise<string> {
  const { status, body } = await stack.ask("GET", `/snapshots${query}`)
  expect([status, body.code], `for ${query}`).toEqual([400, "Bad Request"])
  return body.message
}

test("case 41: no snapshots are an empty array", async () => {
  await using empty = await testApi()

  const { status, text, headers } = await empty.ask("GET", "/snapshots")

  expect([status, text]).toEqual([200, "[]"])
  expect(headers.get("content-type")).toContain("application/json")
})

test("case 42: kind filters, a wrong or empty value is refused, an unknown parameter ignored", async () => {
  expect((await ids("?kind=Standby&foo=1&foo=")).toSorted()).toEqual([both, backend, odd].toSorted())
  expect(await ids("?kind=Stopped")).toEqual([])
  expect(await queryError("?kind=x")).toBe(
    'parameter "kind" in query has an error: value is not one of the allowed values ["Standby","Stopped"]',
  )
  for (const name of ["name", "kind", "source_instance_id", "status", "limit"])
    expect(await queryError(`?${name}=`)).toBe(
      `parameter "${name}" in query has an error: empty value is not allowed`,
    )
  for (const query of [
    "?limit=0",
    "?limit=x",
    "?limit=1e3",
    "?status=ready,x",
    "?tags=x",
    "?kind=Standby&kind=Stopped",
  ])
    await queryError(query)
})

test("case 43: tags are a subset match, with percent-encoded brackets and any legal key", async () => {
  expect(await ids("?tags%5Bteam%5D=backend&tags%5Benv%5D=staging")).toEqual([both])
  expect(await ids("?tags[team]=backend&tags[env]=staging")).toEqual([both])
  expect((await ids("?tags[team]=backend")).toSorted()).toEqual([both, backend].toSorted())
  expect(await ids(`?tags[${encodeURIComponent("a b:c/d.e=f")}]=g%20h`)).toEqual([odd])
  expect(await ids("?tags[0]=zero&tags[empty]=")).toEqual([odd])
  expect(await ids("?tags[team]=Backend")).toEqual([])
  for (const query of ["?tags[__proto__]=x", "?tags[a%23]=x", "?tags[]=x", "?tags[a]=1&tags[a]=2"])
    await queryError(query)
})

test("case 44: the source is a full id, never a name, and matches also when the instance is gone", async () => {
  const gone = await stack.launch("gone")
  const { id } = await captured(stack, gone.id)

  expect(await ids("?source_instance_id=gone")).toEqual([])
  expect(await ids(`?source_instance_id=${gone.id.slice(0, 12)}`)).toEqual([])
  expect(await ids(`?source_instance_id=${gone.id}`)).toEqual([id])
  await stack.api.request("DELETE", "/instances/gone")
  expect(await ids(`?source_instance_id=${gone.id}`)).toEqual([id])
})

test("case 45: filters are ANDed, and the name is the whole name", async () => {
  expect(await ids(`?source_instance_id=${vm.id}&name=nightly&tags[env]=staging&kind=Standby`)).toEqual([
    both,
  ])
  expect(await ids(`?source_instance_id=${vm.id}&tags[env]=production`)).toEqual([])
  expect(await ids(`?name=nightly&kind=Stopped`)).toEqual([])
  for (const name of ["night", "Nightly", "%00", "nightl%", "%ff"])
    expect(await ids(`?name=${name}`)).toEqual([])
})

test("case 46: a snapshot is found by its exact id only", async () => {
  expect((await stack.ask("GET", `/snapshots/${both}`)).body.id).toBe(both)
  for (const key of [both.slice(0, 12), "nightly", `${both}a`, "%00", "a%2Fb%20c", both.toUpperCase()]) {
    const { status, body } = await stack.ask("GET", `/snapshots/${key}`)
    expect([status, body]).toEqual([404, { code: "not_found", message: "snapshot not found" }])
  }
  expect((await stack.ask("GET", "/snapshots/")).status).toBe(404)
  expect((await stack.ask("GET", "/snapshots/%ff")).status).toBe(400)
})

test("case 47: a delete is 204 without a body, and then everything is 404", async () => {
  const { status, text, headers } = await stack.ask("DELETE", `/snapshots/${odd}`)

  expect([status, text, headers.get("content-length") ?? "0"]).toEqual([204, "", "0"])
  for (const method of ["GET", "DELETE"]) {
    const again = await stack.ask(method, `/snapshots/${odd}`)
    expect([again.status, again.body]).toEqual([404, { code: "not_found", message: "snapshot not found" }])
  }
  expect(await ids("")).not.toContain(odd)
})
