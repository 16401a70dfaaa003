import { algorithms } from "@stillframe/domain/compression"
import { errorCodes, type ErrorCode } from "@stillframe/domain/errors"
import { eventTypes, type EventEnvelope, type EventType } from "@stillframe/domain/events"
import { hypervisors, instanceStates, type InstanceResource } from "@stillframe/domain/instance"
import {
  captureModes,
  compressionStates,
  snapshotKinds,
  snapshotStatuses,
  type SnapshotResource,
} from "@stillframe/domain/snapshot"
import { disabledReasons, type WebhookResource } from "@stillframe/domain/webhook"
import { z } from "zod"

// What answers look like. They are not validated: the types prove that what is described is what is shown.

const id = z.string().meta({ description: "24 lower-case letters and digits, the first a letter" })
const time = z.iso.datetime()
const bytes = z.int().min(0)
const tags = z.record(z.string(), z.string())

const compression = z.object({
  enabled: z.boolean(),
  algorithm: z.enum(algorithms).exactOptional(),
  level: z.int().exactOptional(),
})

export const snapshotSchema: z.ZodType<SnapshotResource> = z
  .object({
    id,
    kind: z.enum(snapshotKinds),
    name: z.string().exactOptional(),
    tags: tags.exactOptional(),
    source_instance_id: id,
    source_instance_name: z.string(),
    source_hypervisor: z.enum(hypervisors),
    created_at: time,
    size_bytes: bytes.meta({ description: "of all files; 0 until the snapshot is captured" }),
    capture: z
      .enum(captureModes)
      .exactOptional()
      .meta({ description: "how the request wanted its memory saved; of Standby snapshots only" }),
    compression: compression
      .exactOptional()
      .meta({ description: "as it takes effect, every default filled in" }),
    compression_state: z.enum(compressionStates),
    compression_error: z
      .string()
      .exactOptional()
      .meta({ description: "why the last compression failed; with `compressed`, the one before is kept" }),
    compression_reason: z.string().exactOptional().meta({
      description:
        "why its memory can't be compressed, whatever `compression` asks for: `compression_state` stays `none`",
    }),
    compressed_size_bytes: bytes.exactOptional(),
    uncompressed_size_bytes: bytes.exactOptional(),
    status: z.enum(snapshotStatuses),
    progress: z.number().min(0).max(1).exactOptional(),
    error: z
      .object({ code: z.enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]]), message: z.string() })
      .exactOptional(),
    captured_at: time.exactOptional().meta({ description: "the point in time, by the host's clock" }),
    pause_ms: z.number().exactOptional().meta({ description: "how long the guest stood still" }),
    stored_bytes: bytes.exactOptional().meta({ description: "blocks on disk, shared ones included" }),
    shared_bytes: bytes.exactOptional().meta({
      description:
        "blocks of `stored_bytes` that its VM, other snapshots or imported images shared with it when it was captured or compressed",
    }),
    verified_at: time.exactOptional().meta({ description: "when its files were last found to be good" }),
    corrupted_at: time.exactOptional().meta({
      description:
        "when its files were found to be damaged, `error` says how; it can be neither forked nor restored",
    }),
  })
  .meta({ id: "Snapshot" })

export const instanceSchema: z.ZodType<InstanceResource> = z
  .object({
    id,
    name: z.string(),
    image: z.string(),
    hypervisor: z.enum(hypervisors),
    host: z.string(),
    attached: z
      .literal(true)
      .exactOptional()
      .meta({ description: "someone else started this VM, and only they end it" }),
    state: z.enum(instanceStates),
    state_error: z
      .string()
      .exactOptional()
      .meta({ description: "why the last thing asked of it has failed" }),
    importing: z
      .object({
        bytes: bytes.meta({ description: "of its files that are read" }),
        total_bytes: bytes,
        seconds_left: z.int().nonnegative().exactOptional().meta({ description: "at the speed until now" }),
      })
      .exactOptional()
      .meta({ description: "how far the import of its files is; only while it is `Initializing`" }),
    vcpus: z.int(),
    size: z.string().meta({ description: "memory, for people" }),
    tags: tags.exactOptional(),
    snapshot_policy: z
      .object({
        compression: compression.exactOptional(),
        standby_compression_delay: z.string().exactOptional(),
      })
      .exactOptional(),
    has_snapshot: z.boolean(),
    exit_code: z.int().exactOptional(),
    exit_message: z.string().exactOptional(),
    created_at: time,
    started_at: time.exactOptional(),
    stopped_at: time.exactOptional(),
    expires_at: time.nullable().meta({ description: "null: nothing expires here" }),
  })
  .meta({ id: "Instance" })

const webhook = z.object({
  id,
  url: z.string(),
  description: z.string().exactOptional(),
  event_types: z.array(z.string()),
  instance_ids: z.array(z.string()),
  tags: tags.exactOptional(),
  enabled: z.boolean(),
  disabled_reason: z
    .enum(disabledReasons)
    .exactOptional()
    .meta({
      description:
        "why it was disabled, where its owner did not do it. `gone`: its receiver answered 410; `failing`: nothing but " +
        "failures for 5 days, and then another delivery was given up",
    }),
  failing_since: time
    .exactOptional()
    .meta({ description: "since when there have been nothing but failures" }),
  previous_secret_until: time.nullable().meta({
    description: "until when the secret before the last rotation signs too; null: it does not",
  }),
  created_at: time,
})
export const webhookSchema: z.ZodType<WebhookResource> = webhook.meta({ id: "Webhook" })

const envelope = z.object({
  id,
  sequence: z.int().min(1).meta({ description: "dense over all events" }),
  type: z.enum(eventTypes),
  occurred_at: time,
  subject: z.object({ kind: z.enum(["snapshot", "instance", "webhook"]), id }),
  data: z.union([snapshotSchema, instanceSchema, webhookSchema]),
})
export const eventSchema: z.ZodType<EventEnvelope> = envelope.meta({ id: "Event" })

const dataSchemas = { snapshot: snapshotSchema, instance: instanceSchema, webhook: webhookSchema }

/** An event of one type, whose `data` is of one kind. */
export function eventSchemaOf(type: EventType): z.ZodType {
  const kind = type.split(".", 1)[0] as EventEnvelope["subject"]["kind"]
  return envelope.extend({
    type: z.literal(type),
    subject: z.object({ kind: z.literal(kind), id }),
    data: dataSchemas[kind],
  })
}

export const eventStreamSchema = z.string().meta({
  description:
    "Server-sent events. `id` is the sequence, `event` the type, `data` an Event as JSON; an `id` alone says that " +
    "everything up to it has been looked at. `reset` with `{oldest}`: what lies before that sequence is gone, or the place " +
    "asked for is one that this feed has not reached, and the stream goes on from it. `snapshot.progress` with a SnapshotProgress has no id: it is in no log, and one may be lost.",
})

export const newWebhookSchema = webhook
  .extend({ secret: z.string().meta({ description: "`whsec_…`; shown this once" }) })
  .meta({ id: "NewWebhook" })

export const webhookTestSchema = z
  .object({ event_id: id.meta({ description: "of the event, and the `webhook-id` of its delivery" }) })
  .meta({ id: "WebhookTest", description: "The event is on its way" })

export const waitedSchema = z
  .object({ state: z.enum(instanceStates), state_error: z.string().exactOptional(), timed_out: z.boolean() })
  .meta({ id: "WaitForStateResponse" })

export const errorSchema = z
  .object({
    code: z.string().meta({ description: "a word for programs" }),
    message: z.string().meta({ description: "a sentence for people, with what they can do" }),
  })
  .meta({ id: "Error" })

export const eventsRemovedSchema = errorSchema
  .extend({ oldest: z.int().min(1).meta({ description: "the oldest sequence that is kept" }) })
  .meta({ id: "EventsRemoved", description: "Events after `after` have been removed" })

export const healthSchema = z.object({ status: z.literal("ok") }).meta({ id: "Health" })
const readyProblem = z.object({
  where: z.string().meta({ description: "`host <name>`, `pool <name>`, `database` or `queue`" }),
  code: z.enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]]),
  message: z.string().meta({ description: "why, and what to do" }),
})

const ready = z.object({
  status: z.enum(["ok", "degraded", "unavailable"]).meta({
    description:
      "`degraded`: some host or pool has a problem; `unavailable`: no work can be done, `problems` says why",
  }),
  problems: z.array(readyProblem),
  hosts: z.array(z.object({ name: z.string(), hypervisors: z.record(z.string(), z.string()) })),
  compression_workers: z.array(
    z.object({
      name: z.string(),
      pool: z.string(),
      codecs: z
        .record(z.enum(algorithms), z.string())
        .meta({ description: "the binding in use for each algorithm" }),
    }),
  ),
})
export const readySchema = ready.meta({ id: "Ready" })
export const notReadySchema = errorSchema
  .extend(ready.shape)
  .meta({ id: "NotReady", description: "No work can be done" })
