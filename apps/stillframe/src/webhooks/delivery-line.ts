import { z } from "zod"
import type { Delivery } from "./receiver.ts"

/** A delivery for people: when, type, subject, sequence, and whether it was verified. */
export function deliveryLine(delivery: Delivery, receivedAt: Date): string {
  const verified = "event" in delivery
  const { type, subject, sequence } = verified ? delivery.event : claimsOf(delivery.body)
  return [
    receivedAt.toISOString(),
    type.padEnd(28),
    subject.id.padEnd(24),
    String(sequence).padStart(6),
    verified ? " verified" : ` REFUSED: ${delivery.refusal}`,
  ].join(" ")
}

interface Claims {
  readonly type: string
  readonly subject: { readonly id: string }
  readonly sequence: number | string
}

/**
 * The id and type that an unverified body claims, if they have our form: a stranger's text must not move the
 * terminal.
 */
function claimsOf(body: string): Claims {
  try {
    return claimsSchema.parse(JSON.parse(body))
  } catch {
    return { type: "-", subject: { id: "-" }, sequence: "-" }
  }
}

const word = z.string().regex(/^[a-z0-9_.]{1,64}$/)
const claimsSchema = z.object({ type: word, subject: z.object({ id: word }), sequence: z.int() })
