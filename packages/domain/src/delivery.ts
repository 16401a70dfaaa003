import type { EventType } from "./events.ts"

export const deliveryStates = ["pending", "delivered", "failed"] as const
export type DeliveryState = (typeof deliveryStates)[number]

/** A delivery, which is one event on its way to one webhook, as callers see it. */
export interface DeliveryRecord {
  readonly id: number
  readonly webhook_id: string
  readonly sequence: number
  readonly event_id: string
  readonly event_type: EventType
  readonly state: DeliveryState
  readonly attempt_count: number
  readonly next_attempt_at: Date
  readonly ended_at: Date | null
  readonly response_status: number | null
  readonly error: string | null
}

export interface DeliveryResource {
  readonly id: string
  readonly webhook_id: string
  readonly sequence: number
  readonly event_id: string
  readonly event_type: EventType
  readonly state: DeliveryState
  /** In all, also before it was sent again. */
  readonly attempt_count: number
  /** While it is pending; in the past: as soon as there is room, or its webhook is enabled. */
  readonly next_attempt_at?: string
  readonly ended_at?: string
  /** This and `error` are those of the last attempt. */
  readonly response_status?: number
  readonly error?: string
}

export interface AttemptRecord {
  readonly attempted_at: Date
  readonly duration_ms: number
  readonly response_status: number | null
  readonly response_body: string | null
  readonly error: string | null
}

export interface AttemptResource {
  readonly attempted_at: string
  readonly duration_ms: number
  readonly response_status?: number
  /** Its first KiB, as text. */
  readonly response_body?: string
  readonly error?: string
}

export function deliveryResource(record: DeliveryRecord): DeliveryResource {
  return {
    id: String(record.id),
    webhook_id: record.webhook_id,
    sequence: record.sequence,
    event_id: record.event_id,
    event_type: record.event_type,
    state: record.state,
    attempt_count: record.attempt_count,
    ...(record.state === "pending" && { next_attempt_at: record.next_attempt_at.toISOString() }),
    ...(record.ended_at !== null && { ended_at: record.ended_at.toISOString() }),
    ...(record.response_status !== null && { response_status: record.response_status }),
    ...(record.error !== null && { error: record.error }),
  }
}

export function attemptResource(record: AttemptRecord): AttemptResource {
  return {
    attempted_at: record.attempted_at.toISOString(),
    duration_ms: record.duration_ms,
    ...(record.response_status !== null && { response_status: record.response_status }),
    ...(record.response_body !== null && { response_body: record.response_body }),
    ...(record.error !== null && { error: record.error }),
  }
}

/** A receiver may ask for at most so long a pause, which is longer than any of the schedule. */
export const retryAfterMsMax = 24 * 3_600_000
