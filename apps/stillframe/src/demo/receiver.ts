import type { EventEnvelope } from "@stillframe/domain/events"
import { startWebhookReceiver, type WebhookReceiver } from "../webhooks/receiver.ts"

/** A webhook receiver that is asked for what it received. */
export interface Receiver extends WebhookReceiver {
  /** The first delivery of this type with a valid signature. */
  received(type: EventEnvelope["type"]): Promise<EventEnvelope>
}

export async function startReceiver(): Promise<Receiver> {
  const events = new Map<string, PromiseWithResolvers<EventEnvelope>>()
  const slot = (type: string): PromiseWithResolvers<EventEnvelope> => {
    const known = events.get(type) ?? Promise.withResolvers<EventEnvelope>()
    events.set(type, known)
    return known
  }
  const receiver = await startWebhookReceiver({
    port: 0,
    onDelivery: (delivery) => {
      if ("event" in delivery) slot(delivery.event.type).resolve(delivery.event)
    },
  })
  return { ...receiver, received: (type) => slot(type).promise }
}
