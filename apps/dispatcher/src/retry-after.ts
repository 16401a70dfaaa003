import { retryAfterMsMax } from "@stillframe/domain/delivery"

/**
 * The delay in `Retry-After` in milliseconds (RFC 9110): seconds, or a date, which is measured by the
 * answer's own clock. Undefined for an unreadable value, or for a date without the clock: this machine's may
 * differ.
 */
export function retryAfterMs(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): number | undefined {
  const value = headers["retry-after"]
  if (typeof value !== "string") return undefined
  const ms = /^\d+$/.test(value.trim()) ? Number(value) * 1_000 : untilDate(value, headers["date"])
  return Number.isNaN(ms) ? undefined : Math.min(Math.max(ms, 0), retryAfterMsMax)
}

function untilDate(value: string, answeredAt: string | string[] | undefined): number {
  const now = typeof answeredAt === "string" ? Date.parse(answeredAt) : Number.NaN
  // Date.parse takes much more than HTTP's dates: "-5" is one too.
  const asked = value.endsWith(" GMT") ? Date.parse(value) : Number.NaN
  return asked - now
}
