import type { DeliveryOutcome } from "@stillframe/db/webhooks/delivery-outcomes"
import { deliveryRetryMs, withJitter } from "@stillframe/domain/events"
import { unreachable, type Server } from "@stillframe/domain/unreachable"
import type { Answer } from "./post-signed.ts"

/** Its receiver wants nothing more, ever. */
export const goneStatus = 410

type Judgement = Omit<DeliveryOutcome, "durationMs">

/** Any 2xx is success, and a redirect is not. `attempt` counts from 1. */
export function judgeAnswer(attempt: number, { status, body, retryAfterMs = 0 }: Answer): Judgement {
  const what = { responseStatus: status, responseBody: body }
  if (status >= 200 && status < 300) return { delivered: true, ...what }
  const scheduledMs = retryMs(attempt)
  return {
    delivered: false,
    ...what,
    error: `answered ${status}`,
    retryMs: scheduledMs && Math.max(scheduledMs, retryAfterMs),
  }
}

/** Judges an attempt that got no answer. */
export function judgeError(attempt: number, error: unknown): Judgement {
  return { delivered: false, error: textOf(error), retryMs: retryMs(attempt) }
}

/** Undefined after the last try. */
function retryMs(attempt: number): number | undefined {
  const delayMs = deliveryRetryMs[attempt - 1]
  return delayMs === undefined ? undefined : withJitter(delayMs, Math.random())
}

const receiver: Server = { name: "the receiver", setting: "the webhook's url" }

/** In our words where it is about the connection; some such errors have a code and no words. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return (
    unreachable(receiver, error) ?? (error.message || ((error as NodeJS.ErrnoException).code ?? error.name))
  )
}
