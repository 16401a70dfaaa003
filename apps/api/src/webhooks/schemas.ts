import { eventChoices } from "@stillframe/domain/events"
import { z } from "zod"
import { idSchema, tagsSchema } from "../http/input/schemas.ts"

const urlLengthMax = 2_048
const descriptionLengthMax = 512
const instanceIdsMax = 100

const description = z
  .string()
  .max(descriptionLengthMax)
  .refine((text) => !text.includes("\0"), { error: "string must not hold a NUL character" })

/** The members that a webhook's owner sets. */
const fields = {
  url: z
    .string()
    .max(urlLengthMax)
    .meta({
      format: "uri",
      pattern: "^https?://",
      description:
        "The address that events are sent to: a public `https://` address, or one in `WEBHOOK_ALLOWED_CIDRS`, also by `http://`.",
    })
    .transform(toPlainUrl),
  event_types: z
    .array(z.enum(eventChoices))
    .max(eventChoices.length)
    .optional()
    .describe("The types of events to send; `snapshot.*` stands for all of a kind. Defaults to every type."),
  instance_ids: z
    .array(idSchema)
    .max(instanceIdsMax)
    .optional()
    .describe("Send only events of these instances and of their snapshots."),
  tags: tagsSchema.optional().describe("Send only events of resources that have all of these tags."),
  enabled: z
    .boolean()
    .optional()
    .describe("If false, the webhook is paused and no events are sent. Defaults to true."),
}

export const createWebhookSchema = z
  .object({ ...fields, description: description.optional().describe("Your own words about the webhook.") })
  .meta({ id: "CreateWebhookRequest", description: "The webhook to create." })

/** Absent members stay unchanged. */
export const updateWebhookSchema = z
  .object({
    ...fields,
    url: fields.url.optional(),
    description: description
      .nullable()
      .optional()
      .describe("Your own words about the webhook; null removes them."),
  })
  .meta({ id: "UpdateWebhookRequest", description: "The members to change. Absent ones stay as they are." })

/** Here only what is wrong wherever it leads to. */
function toPlainUrl(text: string, context: z.core.$RefinementCtx<string>): string {
  const url = URL.parse(text)
  const plain =
    url !== null && ["http:", "https:"].includes(url.protocol) && url.username === "" && url.password === ""
  if (plain) return url.href
  context.addIssue({
    code: "custom",
    input: text,
    message: "value must be an http:// or https:// URL without credentials",
  })
  return z.NEVER
}
