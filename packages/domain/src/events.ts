import type { InstanceResource } from "./instance.ts"
import type { CompressionState, SnapshotResource, SnapshotStatus } from "./snapshot.ts"
import type { WebhookResource } from "./webhook.ts"

export const eventTypes = [
  "snapshot.created",
  "snapshot.captured",
  "snapshot.compressed",
  "snapshot.compression_failed",
  "snapshot.completed",
  "snapshot.failed",
  "snapshot.deleted",
  "snapshot.updated",
  "snapshot.verified",
  "snapshot.corrupted",
  "instance.created",
  "instance.state_changed",
  "instance.forked",
  "instance.restored",
  "instance.deleted",
  "webhook.test",
  "webhook.disabled",
] as const
export type EventType = (typeof eventTypes)[number]

/** Each stands for all types of a subject. */
const eventPatterns = ["snapshot.*", "instance.*", "webhook.*"] as const
export const eventChoices = [...eventTypes, ...eventPatterns] as const

/** Expands patterns to event types. Unknown names are left out. */
export function chosenEventTypes(choice: readonly string[]): EventType[] {
  return eventTypes.filter((type) => choice.includes(type) || choice.includes(patternOf(type)))
}

function patternOf(type: string): string {
  return `${type.split(".", 1).join("")}.*`
}

/**
 * One line of the feed and the body of a webhook. `sequence` is dense over all events; `data` is the whole
 * resource as it was.
 */
export interface EventEnvelope {
  readonly id: string
  readonly sequence: number
  readonly type: EventType
  readonly occurred_at: string
  readonly subject: { readonly kind: "snapshot" | "instance" | "webhook"; readonly id: string }
  readonly data: SnapshotResource | InstanceResource | WebhookResource
}

/**
 * As JSON in UTF-8 no event is larger. Its members' limits allow at most some 58,000: tags 50 × 390, three
 * reasons of 2,000 units × 6 bytes or a URL of 2,048 × 9, and little else.
 */
export const eventBytesMax = 65_536

/** Selects events of the feed. An absent member selects all. */
export interface EventFilter {
  readonly types?: readonly EventType[] | undefined
  readonly subjectId?: string | undefined
  /** Selects events of the instance and of its snapshots, as in a webhook's filter. */
  readonly instanceId?: string | undefined
}

export function matchesEvent(
  { type, subject, data }: Pick<EventEnvelope, "type" | "subject" | "data">,
  { types, subjectId, instanceId }: EventFilter,
): boolean {
  const instance = "source_instance_id" in data ? data.source_instance_id : subject.id
  return (
    (types === undefined || types.includes(type)) &&
    (subjectId === undefined || subjectId === subject.id) &&
    (instanceId === undefined || instanceId === instance)
  )
}

/** A type that only streams have. */
export const progressType = "snapshot.progress"

/** How far the work on a snapshot is. Sent to streams only: it is in no log, and one may be lost. */
export interface SnapshotProgress {
  readonly snapshot_id: string
  readonly source_instance_id: string
  readonly status: SnapshotStatus
  readonly compression_state: CompressionState
  /** 0 to 1. */
  readonly progress: number
}

/** The delay after each failed try, as Standard Webhooks recommends. */
export const deliveryRetryMs = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000].map((s) => s * 1_000)

/** ±20 %, so that the receivers that failed together do not come back together. `random` is in [0, 1). */
export function withJitter(delayMs: number, random: number): number {
  return Math.round(delayMs * (0.8 + 0.4 * random))
}
