import { eventBytesMax, eventTypes, type EventType } from "@stillframe/domain/events"
import type { ToReference } from "./openapi.ts"
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
            description: `At most ${eventBytesMax} bytes. The signature is over these very bytes.`,
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
  "snapshot.captured": "A snapshot is durable and can be forked and restored",
  "snapshot.compressed": "A snapshot's memory is compressed and has been read back",
  "snapshot.compression_failed": "A snapshot could not be compressed; it stays usable",
  "snapshot.completed": "All that was asked for with a snapshot is done",
  "snapshot.failed": "A snapshot could not be captured",
  "snapshot.deleted": "A snapshot was deleted; `data` is its last state",
  "snapshot.updated": "A snapshot is being compressed anew",
  "snapshot.verified": "A snapshot's files were checked and are good",
  "snapshot.corrupted": "A snapshot's files were checked and are damaged",
  "instance.created": "An instance was asked for",
  "instance.state_changed": "An instance is in another state",
  "instance.forked": "An instance is there by a fork",
  "instance.restored": "An instance has a snapshot's state again",
  "instance.deleted": "An instance was deleted; `data` is its last state",
  "webhook.test": "Somebody asked for a test; sent to that webhook only",
  "webhook.disabled": "A webhook was given up; sent to the others",
}

const parameters = [
  header("webhook-id", "The event's id: the same at every try, so that a receiver can tell a repetition"),
  header("webhook-timestamp", "The time of this try, in seconds since 1970"),
  header(
    "webhook-signature",
    "By Standard Webhooks: `v1,` and the base64 of the HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>`; after a " +
      "rotation two, with a space between",
  ),
]

function header(name: string, description: string): object {
  return { name, in: "header", required: true, description, schema: { type: "string" } }
}

const responses = {
  "2XX": { description: "Taken, if it comes within 15 seconds" },
  "410": { description: "Not wanted any more: the webhook is disabled" },
  default: { description: "Not taken: tried again later, after `Retry-After` if there is one" },
}
