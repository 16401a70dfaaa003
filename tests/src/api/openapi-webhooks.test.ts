import {
  appendInstanceEvent,
  appendSnapshotEvent,
  appendWebhookEvent,
  listEvents,
  numberEvents,
} from "@stillframe/db/events/events"
import { findWebhook } from "@stillframe/db/webhooks/webhooks"
import { eventBytesMax, eventTypes, type EventEnvelope, type EventType } from "@stillframe/domain/events"
import { nameLengthMax } from "@stillframe/domain/text/names"
import { tagKeyPattern, tagsMax, tagValuePattern } from "@stillframe/domain/text/tags"
import addFormats from "ajv-formats"
import { Ajv2020 } from "ajv/dist/2020.js"
import { afterAll, beforeAll, expect, test } from "vitest"
import { instanceRecord, snapshotRecord } from "../events/records.ts"
import { closed } from "./closed-schema.ts"
import { testApi, type TestApi } from "./test-api.ts"

let api: TestApi
beforeAll(async () => {
  api = await testApi()
})
afterAll(() => api[Symbol.asyncDispose]())

const created = new Date("2026-01-01T00:00:00.000Z")
const tags = Object.fromEntries(
  Array.from({ length: tagsMax }, (_, n) => [`${n}`.padStart(2, "0").padEnd(128, "k"), "v".repeat(256)]),
)
const name = "n".repeat(nameLengthMax)
/** Each character is six in JSON. */
const endless = "\u0001".repeat(100_000)
const largeNumber = Number.MAX_SAFE_INTEGER

/** The most that the API takes, and it takes no more. */
async function largestWebhook() {
  const url = `https://${"x".repeat(60)}.example/`
  const body = {
    // Each is nine characters once it is written as an address.
    url: url + "→".repeat(2_048 - url.length),
    description: "\u0001".repeat(512),
    event_types: eventTypes,
    instance_ids: Array.from({ length: 100 }, (_, n) => `a${String(n).padStart(23, "0")}`),
    tags,
  }
  const more = {
    url: `${body.url}x`,
    description: `${body.description}x`,
    instance_ids: [...body.instance_ids, `b${"0".repeat(23)}`],
    tags: { ...tags, more: "" },
  }
  for (const [member, value] of Object.entries(more))
    expect([
      member,
      (await api.ask("POST", "/webhooks", { body: { ...body, [member]: value } })).status,
    ]).toEqual([member, 400])
  const { status, body: resource } = await api.ask("POST", "/webhooks", { body })
  expect(status).toBe(201)
  const row = await findWebhook(api.db, resource.id as string)
  if (row === undefined) throw new Error("the webhook is gone")
  return {
    ...row,
    disabled_reason: "failing",
    failing_since: created,
    previous_secret_until: created,
  } as const
}

const largestSnapshot = snapshotRecord({
  name,
  tags,
  source_instance_name: name,
  status: "failed",
  compression: { enabled: true, algorithm: "zstd", level: 19 },
  compression_state: "compressed",
  compression_error: endless,
  size_bytes: largeNumber,
  uncompressed_size_bytes: largeNumber,
  compressed_size_bytes: largeNumber,
  stored_bytes: largeNumber,
  shared_bytes: largeNumber,
  progress: 1 / 3,
  error_code: "invalid_snapshot_compression",
  error_message: endless,
  pause_ms: 1_000_000 / 3,
  captured_at: created,
  verified_at: created,
  corrupted_at: created,
})

const largestInstance = instanceRecord({
  name,
  image: "i".repeat(64),
  host: name,
  attached: {},
  state: "Initializing",
  state_error: endless,
  restorable_reason: endless,
  vcpus: 255,
  memory_mib: 4 * 1024 * 1024,
  tags,
  snapshot_policy: {
    compression: { enabled: true, algorithm: "zstd", level: 19 },
    standby_compression_delay: "99999999h59m59.999999999s",
  },
  exit_code: -2_147_483_648,
  exit_message: endless,
  started_at: created,
  stopped_at: created,
})

/** One event of each type, with all that its subject can hold. */
async function largestEvents(): Promise<EventEnvelope[]> {
  const webhook = await largestWebhook()
  const append = async (type: EventType): Promise<void> => {
    if (type.startsWith("snapshot.")) await appendSnapshotEvent(api.db, type, largestSnapshot)
    else if (type.startsWith("instance.")) await appendInstanceEvent(api.db, type, largestInstance)
    else await appendWebhookEvent(api.db, type, webhook)
  }
  for (const type of eventTypes) await append(type)
  await numberEvents(api.db)
  return listEvents(api.db, { after: 0, limit: 100 })
}

test("every type of event is described: its body, its headers, and how large it can be", async () => {
  const { body: document } = await api.ask("GET", "/spec.json", { claims: null })
  const events = await largestEvents()
  const ajv = addFormats.default(new Ajv2020({ strict: false, allErrors: true }))
  ajv.addSchema(closed(document) as object, "api")
  expect(Object.keys(document.webhooks)).toEqual(eventTypes)
  expect(events.map(({ type }) => type)).toEqual(eventTypes)

  for (const event of events) {
    const { parameters, requestBody, responses } = document.webhooks[event.type].post
    expect(parameters.map(({ name }: { name: string }) => name)).toEqual([
      "webhook-id",
      "webhook-timestamp",
      "webhook-signature",
    ])
    expect(Object.keys(responses)).toEqual(["410", "2XX", "default"])
    expect(requestBody.description).toContain(`At most ${eventBytesMax} bytes`)
    const pointer = `api#/webhooks/${event.type}/post/requestBody/content/application~1json/schema`
    const validate = ajv.compile({ $ref: pointer })
    expect([event.type, validate(event), validate.errors]).toEqual([event.type, true, null])
    const other = eventTypes.find((type) => type !== event.type)
    expect([event.type, validate({ ...event, type: other })]).toEqual([event.type, false])
  }
  const bytes = Math.max(...events.map((event) => Buffer.byteLength(JSON.stringify(event))))
  expect([bytes > eventBytesMax / 2, bytes <= eventBytesMax]).toEqual([true, true])
})

test("the tags of the largest event are the largest there are", () => {
  for (const [key, value] of Object.entries(tags)) {
    expect([tagKeyPattern.test(key), tagKeyPattern.test(`${key}x`)]).toEqual([true, false])
    expect([tagValuePattern.test(value), tagValuePattern.test(`${value}x`)]).toEqual([true, false])
  }
})
