import { deliveryStates, type AttemptResource, type DeliveryResource } from "@stillframe/domain/delivery"
import { eventTypes } from "@stillframe/domain/events"
import { z } from "zod"

const id = z.string()
const time = z.iso.datetime()
const status = z.int().exactOptional().meta({ description: "what the receiver answered" })
const error = z.string().exactOptional().meta({ description: "why the attempt has failed" })

const delivery = z.object({
  id: id.meta({ description: "a number" }),
  webhook_id: id,
  sequence: z.int().min(1).meta({ description: "of the event" }),
  event_id: id.meta({ description: "the `webhook-id` of each attempt" }),
  event_type: z.enum(eventTypes),
  state: z.enum(deliveryStates),
  attempt_count: z.int().min(0).meta({ description: "in all, also before it was sent again" }),
  next_attempt_at: time.exactOptional().meta({
    description: "while it is pending; in the past: as soon as there is room, or its webhook is enabled",
  }),
  ended_at: time.exactOptional(),
  response_status: status,
  error,
})
export const deliverySchema: z.ZodType<DeliveryResource> = delivery.meta({ id: "Delivery" })

const attemptSchema: z.ZodType<AttemptResource> = z
  .object({
    attempted_at: time,
    duration_ms: z.int().min(0),
    response_status: status,
    response_body: z.string().exactOptional().meta({ description: "its first KiB, as text" }),
    error,
  })
  .meta({ id: "DeliveryAttempt" })

export const deliveryWithAttemptsSchema: z.ZodType<
  DeliveryResource & { readonly attempts: readonly AttemptResource[] }
> = delivery
  .extend({ attempts: z.array(attemptSchema).meta({ description: "the newest 100, oldest first" }) })
  .meta({ id: "DeliveryWithAttempts" })

export const redeliveredSchema = z
  .object({
    deliveries: z.int().min(0).meta({ description: "how many are to be made because of this request" }),
    last_sequence: z.int().min(0).meta({ description: "of the last event that was looked at" }),
    complete: z.boolean().meta({
      description:
        "false: there is more than one request may ask for; recover the same time again, or replay from the next sequence",
    }),
  })
  .meta({ id: "Redelivered", description: "The deliveries are on their way" })
