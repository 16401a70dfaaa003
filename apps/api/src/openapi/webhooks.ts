import { eventBytesMax, eventTypes, type EventType } from "@stillframe/domain/events"
import type { ToReference } from "./parts.ts"
import { eventSchemaOf } from "./resources.ts"

/** OpenAPI's `webhooks`: the request that each type of event makes to whoever asked for it. */
export function describedWebhooks(reference: ToReference): Readonly<Record<string, object>> {
  return Object.fromEntries(
    eventTypes.map((type) => [
      type,
      {
        post: {
          operationId: `on ${type}`,
          summary: whenSent[type],
          tags: ["webhooks"],
          security: [],
          parameters,
          requestBody: {
            required: true,
            description: `At most ${eventBytesMax} bytes. The signature covers exactly these bytes.`,
            content: { "application/json": { schema: reference(eventSchemaOf(type), "output") } },
          },
          responses,
        },
      },
    ]),
  )
}

const whenSent: Readonly<Record<EventType, string>> = {
  "snapshot.created": "A snapshot was requested",
  "snapshot.captured": "A snapshot was captured: it is durable and can be forked and restored",
  "snapshot.compressed": "A snapshot's memory was compressed and verified",
  "snapshot.compression_failed": "A snapshot could not be compressed; it stays usable",
  "snapshot.completed": "All work on a snapshot is done",
  "snapshot.failed": "A snapshot could not be captured",
  "snapshot.deleted": "A snapshot was deleted; `data` is its last state",
  "snapshot.updated": "A snapshot is being compressed again",
  "snapshot.verified": "A snapshot was verified",
  "snapshot.corrupted": "A snapshot was found to be damaged",
  "instance.created": "An instance was requested",
  "instance.state_changed": "The state of an instance changed",
  "instance.forked": "An instance was made by a fork",
  "instance.restored": "An instance was restored to a snapshot",
  "instance.deleted": "An instance was deleted; `data` is its last state",
  "webhook.test": "A test was requested; sent to that webhook only",
  "webhook.disabled": "A webhook was disabled because it fails; sent to all others",
}

const parameters = [
  header(
    "webhook-id",
    "The id of the event. It is the same for every attempt, so that you can recognize a repetition.",
  ),
  header("webhook-timestamp", "The time of this attempt, in seconds since 1970."),
  header(
    "webhook-signature",
    "The signature of Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>`. " +
      "After a rotation there are two, separated by a space.",
  ),
]

function header(name: string, description: string): object {
  return { name, in: "header", required: true, description, schema: { type: "string" } }
}

const responses = {
  "2XX": { description: "The delivery is done. The answer must come within 15 seconds." },
  "410": { description: "The webhook is disabled." },
  default: {
    description: "The delivery failed. It is tried again later, after `Retry-After` if there is one.",
  },
}
