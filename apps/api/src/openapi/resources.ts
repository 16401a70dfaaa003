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
import { exampleEvent, exampleInstance, exampleSnapshot, exampleWebhook } from "./example-resources.ts"

// Schemas of answers. Answers are not validated: their types are derived from these schemas.

const id = z.string().meta({
  description: "The id: 24 lower-case letters and digits, the first a letter.",
  examples: ["q7z1w7l2af4l8y7q1h7g2m3s"],
})
const time = (description: string) => z.iso.datetime().describe(`${description}, in UTC (RFC 3339).`)
const bytes = (description: string) => z.int().min(0).describe(description)
const tags = z
  .record(z.string(), z.string())
  .describe("Your own key-value pairs. Absent when there are none.")
export const errorCode = z
  .enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]])
  .describe("A code that programs can rely on.")

const compression = z.object({
  enabled: z.boolean().describe("True if the memory is compressed."),
  algorithm: z.enum(algorithms).exactOptional().describe("The compression algorithm."),
  level: z.int().exactOptional().describe("The compression level of the algorithm."),
})

export const snapshotSchema: z.ZodType<SnapshotResource> = z
  .object({
    id,
    kind: z
      .enum(snapshotKinds)
      .describe("`Standby` holds memory and disks of a VM, `Stopped` the disks of a VM that does not run."),
    name: z.string().exactOptional().describe("The name, unique among the snapshots of its instance."),
    tags: tags.exactOptional(),
    source_instance_id: z
      .string()
      .describe("The id of the instance that was captured. It may be deleted by now."),
    source_instance_name: z
      .string()
      .describe("The name that the instance had when the snapshot was requested."),
    source_hypervisor: z.enum(hypervisors).describe("The hypervisor of the instance at that time."),
    created_at: time("When the snapshot was requested"),
    size_bytes: bytes("The size of all files together. 0 until the snapshot is captured."),
    capture: z
      .enum(captureModes)
      .exactOptional()
      .describe("The `capture` of the request. Only for Standby snapshots."),
    compression: compression
      .exactOptional()
      .describe("The compression that applies, with all defaults filled in. Absent when there is none."),
    compression_state: z.enum(compressionStates).describe("The state of the memory file's compression."),
    compression_error: z
      .string()
      .exactOptional()
      .describe("The reason why the last compression failed. The files that were there before it are kept."),
    compression_reason: z
      .string()
      .exactOptional()
      .describe("The reason why the memory cannot be compressed: `compression_state` then stays `none`."),
    restorable: z
      .literal(false)
      .exactOptional()
      .describe("False for a snapshot that can be neither restored nor forked. Absent otherwise."),
    restorable_reason: z
      .string()
      .exactOptional()
      .describe("The reason why the snapshot cannot be restored, and the remedy."),
    compressed_size_bytes: bytes("The size of the compressed memory file.").exactOptional(),
    uncompressed_size_bytes: bytes("The size of the memory file before compression.").exactOptional(),
    status: z
      .enum(snapshotStatuses)
      .describe(
        "`queued` and `capturing`: the capture is not over. `ready`: the snapshot is durable and can be forked and restored. `failed`: see `error`.",
      ),
    progress: z
      .number()
      .min(0)
      .max(1)
      .exactOptional()
      .describe("The part of the capture or of the compression that is done, from 0 to 1."),
    error: z
      .object({ code: errorCode, message: z.string().describe("The reason, and what you can do.") })
      .exactOptional()
      .describe("The reason why the capture failed, or the files that are damaged."),
    captured_at: time("The point in time that the snapshot shows, by the database's clock").exactOptional(),
    pause_ms: z.number().exactOptional().describe("The length of the guest's pause, in milliseconds."),
    stored_bytes: bytes(
      "The space that the files take on disk, including blocks shared with others.",
    ).exactOptional(),
    shared_bytes: bytes(
      "The part of `stored_bytes` that the snapshot shared with its VM, other snapshots or imported images when it was captured or compressed.",
    ).exactOptional(),
    verified_at: time("When all files were last read and found good").exactOptional(),
    corrupted_at: time(
      "When files were found to be damaged; the snapshot can then be neither forked nor restored",
    ).exactOptional(),
    storage_error: z
      .string()
      .exactOptional()
      .describe("The reason why the files cannot be reached now. They are not lost."),
  })
  .meta({ id: "Snapshot", description: "The state of a VM at one moment.", examples: [exampleSnapshot] })

export const instanceSchema: z.ZodType<InstanceResource> = z
  .object({
    id,
    name: z.string().describe("The name, unique among all instances."),
    image: z.string().describe("The built-in image, or `custom` for a VM with files of its own."),
    hypervisor: z.enum(hypervisors).describe("The hypervisor that runs the VM."),
    host: z.string().describe("The name of the host that runs the VM."),
    attached: z
      .literal(true)
      .exactOptional()
      .describe("True for a VM that was started outside of Stillframe, and that only its owner ends."),
    state: z
      .enum(instanceStates)
      .describe(
        "The state of the VM. `Paused`: it stands still, without a capture, and `state_error` says why. `Unknown`: its hypervisor does not answer, or breaks its protocol because the guest may have taken it over, or its host has sent no heartbeat for 15 s, which makes no event. `state_error` says which.",
      ),
    state_error: z
      .string()
      .exactOptional()
      .describe(
        "The reason why the last action failed, why the VM stands still, or why the state is not known.",
      ),
    importing: z
      .object({
        bytes: bytes("The number of bytes that were read."),
        total_bytes: bytes("The size of all files of the launch."),
        seconds_left: z
          .int()
          .min(0)
          .exactOptional()
          .describe("The remaining time of the import at its average speed."),
      })
      .exactOptional()
      .describe("The progress of the import of the files of a launch, while the state is `Initializing`."),
    restorable: z
      .literal(false)
      .exactOptional()
      .describe(
        "False where snapshots of the VM can be neither restored nor forked, or none can be taken. Absent otherwise.",
      ),
    restorable_reason: z
      .string()
      .exactOptional()
      .describe("The reason why its snapshots cannot be restored, and the remedy."),
    vcpus: z.int().describe("The number of virtual processors."),
    size: z.string().describe("The memory of the VM, such as `512 MB`."),
    tags: tags.exactOptional(),
    snapshot_policy: z
      .object({
        compression: compression.exactOptional().describe("The compression of snapshots that ask for none."),
        standby_compression_delay: z
          .string()
          .exactOptional()
          .describe("A duration that is kept for clients and has no effect."),
      })
      .exactOptional()
      .describe("The defaults for snapshots of this instance."),
    has_snapshot: z.boolean().describe("True while the instance is in Standby."),
    exit_code: z
      .int()
      .exactOptional()
      .describe("The exit code of the VM's process, if it was not ended by a request."),
    exit_message: z.string().exactOptional().describe("The reason why the process ended, if it is known."),
    created_at: time("When the instance was requested"),
    started_at: time("When the VM was last started").exactOptional(),
    stopped_at: time("When the VM last stopped").exactOptional(),
    expires_at: z.iso.datetime().nullable().describe("Always null: instances do not expire."),
  })
  .meta({ id: "Instance", description: "A VM, running or not.", examples: [exampleInstance] })

const webhook = z.object({
  id,
  url: z
    .string()
    .describe(
      "The address that events are sent to. Events, and answers to tokens without `webhook:read`, show its origin only.",
    ),
  description: z.string().exactOptional().describe("Your own words about the webhook."),
  event_types: z.array(z.string()).describe("The types of events that are sent. Empty: every type."),
  instance_ids: z
    .array(z.string())
    .describe("Only events of these instances and their snapshots are sent. Empty: of all."),
  tags: tags.exactOptional().describe("Only events of resources that have all of these tags are sent."),
  enabled: z.boolean().describe("True if events are sent."),
  disabled_reason: z
    .enum(disabledReasons)
    .exactOptional()
    .describe(
      "The reason why Stillframe disabled the webhook. `gone`: its receiver answered 410. `failing`: for 5 days every attempt " +
        "failed, and then another delivery was given up.",
    ),
  failing_since: time("The time since which every attempt has failed").exactOptional(),
  previous_secret_until: z.iso
    .datetime()
    .nullable()
    .describe("The time until which the previous secret signs as well. Null when one secret signs."),
  created_at: time("When the webhook was created"),
})
export const webhookSchema: z.ZodType<WebhookResource> = webhook.meta({
  id: "Webhook",
  description: "A URL that events are sent to.",
  examples: [exampleWebhook],
})

const envelope = z.object({
  id: z.string().describe("The id of the event, and the `webhook-id` of its deliveries."),
  sequence: z.int().min(1).describe("The position in the feed. Positions have no gaps."),
  type: z.enum(eventTypes).describe("The type of the event."),
  occurred_at: time("When it happened"),
  subject: z
    .object({
      kind: z.enum(["snapshot", "instance", "webhook"]).describe("The kind of the resource."),
      id: z.string().describe("The id of the resource."),
    })
    .describe("The resource that the event is about."),
  data: z
    .union([snapshotSchema, instanceSchema, webhookSchema])
    .describe("The whole resource as it was at that moment."),
})
export const eventSchema: z.ZodType<EventEnvelope> = envelope.meta({
  id: "Event",
  description: "A change of a resource.",
  examples: [exampleEvent],
})

const dataSchemas = { snapshot: snapshotSchema, instance: instanceSchema, webhook: webhookSchema }

/** An event of one type, whose `data` is of one kind. */
export function eventSchemaOf(type: EventType): z.ZodType {
  const kind = type.split(".", 1)[0] as EventEnvelope["subject"]["kind"]
  return envelope.extend({
    type: z.literal(type).describe("The type of the event."),
    subject: z
      .object({
        kind: z.literal(kind).describe("The kind of the resource."),
        id: envelope.shape.subject.shape.id,
      })
      .describe("The resource that the event is about."),
    data: dataSchemas[kind].describe("The whole resource as it was at that moment."),
  })
}

export const eventStreamSchema = z.string().meta({
  description:
    "A stream of server-sent events. `id` is the sequence, `event` the type and `data` an Event as JSON. An `id` without data says that " +
    "the feed has been read up to there. `reset` with `{oldest}` says that the requested position is no longer kept or does not exist yet; the stream " +
    "continues from the oldest event that is kept. `snapshot.progress` with a SnapshotProgress has no id, is not in the feed and may be lost. A stream ends when its token expires or is " +
    "revoked; its last line is then a comment that says so.",
})

export const newWebhookSchema = webhook
  .extend({
    secret: z
      .string()
      .describe("The secret that signs deliveries, `whsec_…`. It is shown only in this answer."),
  })
  .meta({
    id: "NewWebhook",
    description: "A webhook with its secret.",
    examples: [{ ...exampleWebhook, secret: "whsec_bm90IGEgc2VjcmV0IG9mIGFueSB3ZWJob29r" }],
  })

export const webhookTestSchema = z
  .object({ event_id: z.string().describe("The id of the event, and the `webhook-id` of its delivery.") })
  .meta({ id: "WebhookTest", description: "The event that was sent as a test." })

export const waitedSchema = z
  .object({
    state: z.enum(instanceStates).describe("The state at the end of the wait."),
    state_error: z
      .string()
      .exactOptional()
      .describe("The reason why the last action on the instance failed."),
    timed_out: z.boolean().describe("True when the instance did not get into the state in time."),
  })
  .meta({ id: "WaitForStateResponse", description: "The result of a wait." })

export const errorSchema = z
  .object({
    code: z.string().describe("A code that programs can rely on."),
    message: z.string().describe("The failure, its reason, and what you can do."),
  })
  .meta({ id: "Error", description: "The reason why a request failed." })

export const eventsRemovedSchema = errorSchema
  .extend({ oldest: z.int().min(1).describe("The sequence of the oldest event that is kept.") })
  .meta({ id: "EventsRemoved", description: "Events after the given position are no longer kept." })
