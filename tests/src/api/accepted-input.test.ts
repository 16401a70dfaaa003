import fc from "fast-check"
import { expect, test } from "vitest"
import { testApi, type TestApi } from "./test-api.ts"

const runs = { numRuns: 60 }

const name = fc.stringMatching(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/)
const tagKey = fc
  .oneof(
    fc.stringMatching(/^[A-Za-z0-9 _.:/=+@-]{1,128}$/),
    fc.constantFrom("0", "constructor", "a.b", "a=b", " "),
  )
  // The one key within the rule that is refused: it would be lost on the way.
  .filter((key) => key !== "__proto__")
const tagValue = fc.stringMatching(/^[A-Za-z0-9 _.:/=+@-]{0,256}$/)
const tags = fc.dictionary(tagKey, tagValue, { minKeys: 1, maxKeys: 50, noNullPrototype: true })

function create(api: TestApi, body: object) {
  return api.ask("POST", "/instances/vm/snapshots", { body: { kind: "Standby", ...body } })
}

function tagQuery(wanted: Readonly<Record<string, string>>): string {
  return Object.entries(wanted)
    .map(([key, value]) => `tags%5B${encodeURIComponent(key)}%5D=${encodeURIComponent(value)}`)
    .join("&")
}

async function listed(api: TestApi, query: string): Promise<string[]> {
  const { status, body } = await api.ask("GET", `/snapshots?${query}`)
  expect(status, `for ${query}`).toBe(200)
  return (body as { id: string }[]).map(({ id }) => id)
}

test("a name and tags within the rules are accepted, come back as given, and find their snapshot again", async () => {
  await using api = await testApi()
  await api.instance("vm")

  await fc.assert(
    fc.asyncProperty(name, tags, async (name, tags) => {
      const { status, body } = await create(api, { name, tags })
      expect([status, body.name, body.tags]).toEqual([202, name, tags])
      const got = await api.ask("GET", `/snapshots/${body.id}`)
      expect([got.body.name, got.body.tags]).toEqual([name, tags])
      expect(await listed(api, `name=${name}`)).toEqual([body.id])
      // A server takes no header or URL without end; four of fifty tags say as much.
      expect(await listed(api, tagQuery(Object.fromEntries(Object.entries(tags).slice(0, 4))))).toContain(
        body.id,
      )
      expect((await api.ask("DELETE", `/snapshots/${body.id}`)).status).toBe(204)
    }),
    runs,
  )
})

test("whatever is accepted as name or tags comes back as given, and all else is refused", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const text = fc.oneof(
    fc.string({ unit: "binary" }),
    fc.string({ unit: "grapheme" }),
    name,
    tagKey,
    fc.constantFrom("\0", "\ud800", "__proto__", "", "a".repeat(64), "-a", "a-", "a\n", "ａ"),
  )
  const body = fc.record({ name: text, tags: fc.dictionary(text, text) }, { requiredKeys: [] })

  await fc.assert(
    fc.asyncProperty(body, async (value) => {
      const reply = await create(api, value)
      expect([202, 400]).toContain(reply.status)
      if (reply.status === 400) return
      const { tags: given = {} } = value
      expect([reply.body.name, reply.body.tags ?? {}]).toEqual([value.name, { ...given }])
      await api.ask("DELETE", `/snapshots/${reply.body.id}`)
    }),
    { numRuns: 200 },
  )
})

test("a list holds exactly the snapshots that have every pair that is asked for", async () => {
  await using api = await testApi()
  await api.instance("vm")
  const few = fc.constantFrom("", "a", "A", "b", "a b", "%", "_", "a=b")
  const valid = few.filter((value) => !["%"].includes(value))
  const small = fc.dictionary(
    valid.filter((key) => key !== ""),
    valid,
    { maxKeys: 3, noNullPrototype: true },
  )
  const made = new Map<string, Record<string, string>>()
  for (const tags of fc.sample(small, { numRuns: 30, seed: 7 })) {
    const { body } = await create(api, { tags })
    made.set(body.id, tags)
  }

  await fc.assert(
    fc.asyncProperty(small, async (wanted) => {
      const matching = [...made]
        .filter(([, tags]) => Object.entries(wanted).every(([key, value]) => tags[key] === value))
        .map(([id]) => id)
      expect((await listed(api, tagQuery(wanted))).toSorted()).toEqual(matching.toSorted())
    }),
    runs,
  )
})

test("no key but a snapshot's own id finds it, and an instance only its id, its name or a beginning of its id", async () => {
  await using api = await testApi()
  const vm = await api.instance("vm")
  const { id } = (await create(api, { name: "nightly" })).body
  const near = (own: string): fc.Arbitrary<string> =>
    fc.oneof(
      fc.integer({ min: 1, max: own.length }).map((length) => own.slice(0, length)),
      fc.integer({ min: 1, max: own.length - 1 }).map((from) => own.slice(from)),
      fc.constantFrom(
        `${own}a`,
        own.toUpperCase(),
        ` ${own}`,
        `${own}%`,
        "_".repeat(24),
        "vm",
        "nightly",
        "v",
      ),
      fc.string({ minLength: 1 }),
    )
  const path = (key: string): string => encodeURIComponent(key.toWellFormed())

  await fc.assert(
    fc.asyncProperty(near(id), near(vm.id), async (snapshotKey, instanceKey) => {
      // A URL has no way to say these two: every client resolves them before it asks.
      fc.pre(![".", ".."].includes(snapshotKey) && ![".", ".."].includes(instanceKey))
      const snapshot = await api.ask("GET", `/snapshots/${path(snapshotKey)}`)
      expect(snapshot.status).toBe(snapshotKey === id ? 200 : 404)
      const instance = await api.ask("GET", `/instances/${path(instanceKey)}`)
      expect(instance.status).toBe(instanceKey === "vm" || vm.id.startsWith(instanceKey) ? 200 : 404)
    }),
    { numRuns: 200 },
  )
})
