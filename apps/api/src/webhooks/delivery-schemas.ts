import { deliveryStates, type AttemptResource, type DeliveryResource } from "@stillframe/domain/delivery"
import { eventTypes } from "@stillframe/domain/events"
import { z } from "zod"

const time = z.iso.datetime()
const status = z.int().exactOptional().describe("The HTTP status of the receiver's answer.")
const error = z.string().exactOptional().describe("The reason why the attempt failed.")

const delivery = z.object({
  id: z.string().describe("The id, a whole number as text."),
  webhook_id: z.string().describe("The id of the webhook."),
  sequence: z.int().min(1).describe("The position of the event in the feed."),
  event_id: z.string().describe("The id of the event, and the `webhook-id` of each attempt."),
  event_type: z.enum(eventTypes).describe("The type of the event."),
  state: z
    .enum(deliveryStates)
    .describe(
      "`pending`: to be sent, or sent again. `delivered`: the receiver took it. `failed`: all attempts failed, or the webhook was disabled.",
    ),
  attempt_count: z.int().min(0).describe("The number of attempts, including those before it was sent again."),
  next_attempt_at: time.exactOptional().meta({
    description:
      "When the next attempt is due, while the delivery is pending. A time in the past means that it waits for its turn, or for the webhook to be enabled.",
  }),
  ended_at: time.exactOptional().describe("When the delivery was made or given up."),
  response_status: status,
  error,
})
export const deliverySchema: z.ZodType<DeliveryResource> = delivery.meta({
  id: "Delivery",
  description: "The delivery of one event to one webhook.",
})

const attemptSchema: z.ZodType<AttemptResource> = z
  .object({
    attempted_at: time.describe("When the attempt was made."),
    duration_ms: z.int().min(0).describe("The duration of the attempt, in milliseconds."),
    response_status: status,
    response_body: z.string().exactOptional().describe("The first KiB of the receiver's answer, as text."),
    error,
  })
  .meta({ id: "DeliveryAttempt", description: "One attempt at a delivery." })

export const deliveryWithAttemptsSchema: z.ZodType<
  DeliveryResource & { readonly attempts: readonly AttemptResource[] }
> = delivery
  .extend({
    attempts: z.array(attemptSchema).meta({ description: "The newest 100 attempts, oldest first." }),
  })
  .meta({ id: "DeliveryWithAttempts", description: "A delivery with its attempts." })

export const redeliveredSchema = z
  .object({
    deliveries: z
      .int()
      .min(0)
      .meta({ description: "The number of deliveries that this request has made due." }),
    last_sequence: z.int().min(0).meta({ description: "The sequence of the last event that was examined." }),
    complete: z.boolean().meta({
      description:
        "False when one request could not cover all events, as it makes at most 10,000 deliveries due: recover the same time again, or replay from the next sequence.",
    }),
  })
  .meta({ id: "Redelivered", description: "The deliveries that were made due." })
