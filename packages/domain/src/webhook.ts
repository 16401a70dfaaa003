import type { Tags } from "./text/tags.ts"

/**
 * Why a webhook was disabled that its owner had enabled: its receiver answered 410, or there were nothing but
 * failures for days and then a delivery was given up.
 */
export const disabledReasons = ["gone", "failing"] as const
export type DisabledReason = (typeof disabledReasons)[number]

/** The secret before a rotation signs for at most so long. */
export const secretGraceMsMax = 7 * 24 * 3_600_000

/** A webhook as callers see it, without its secret. */
export interface WebhookRecord {
  readonly id: string
  readonly url: string
  readonly description: string | null
  readonly event_types: readonly string[]
  readonly instance_ids: readonly string[]
  readonly tags: Tags
  readonly enabled: boolean
  readonly disabled_reason: DisabledReason | null
  readonly failing_since: Date | null
  /** null: only one secret signs. */
  readonly previous_secret_until: Date | null
  readonly created_at: Date
}

/** The resource as every answer and every event shows it. */
export interface WebhookResource {
  readonly id: string
  readonly url: string
  readonly description?: string
  readonly event_types: readonly string[]
  readonly instance_ids: readonly string[]
  readonly tags?: Tags
  readonly enabled: boolean
  readonly disabled_reason?: DisabledReason
  /** Since when there have been nothing but failures. */
  readonly failing_since?: string
  /** Until when the secret before the last rotation signs too; null: it does not. */
  readonly previous_secret_until: string | null
  readonly created_at: string
}

/** Scheme, host and port of a webhook's URL: its path and query often hold a secret. */
export function withOriginOnly(webhook: WebhookResource): WebhookResource {
  return { ...webhook, url: new URL(webhook.url).origin }
}

export function webhookResource(record: WebhookRecord): WebhookResource {
  return {
    id: record.id,
    url: record.url,
    ...(record.description !== null && { description: record.description }),
    event_types: record.event_types,
    instance_ids: record.instance_ids,
    ...(Object.keys(record.tags).length > 0 && { tags: record.tags }),
    enabled: record.enabled,
    ...(record.disabled_reason !== null && { disabled_reason: record.disabled_reason }),
    ...(record.failing_since !== null && { failing_since: record.failing_since.toISOString() }),
    previous_secret_until: record.previous_secret_until?.toISOString() ?? null,
    created_at: record.created_at.toISOString(),
  }
}
