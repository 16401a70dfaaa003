import { eventChoices } from "@stillframe/domain/events"
import { z } from "zod"
import { idSchema, tagsSchema } from "./schemas.ts"

const urlLengthMax = 2_048
const descriptionLengthMax = 512
const instanceIdsMax = 100

const description = z
  .string()
  .max(descriptionLengthMax)
  .refine((text) => !text.includes("\0"), { error: "string must not hold a NUL character" })

/** What a webhook's owner says of it. */
const fields = {
  url: z.string().max(urlLengthMax).meta({ format: "uri", pattern: "^https?://" }).transform(toPlainUrl),
  /** A type, or `snapshot.*` or `instance.*` for all of a subject's. None: every type. */
  event_types: z.array(z.enum(eventChoices)).max(eventChoices.length).optional(),
  instance_ids: z.array(idSchema).max(instanceIdsMax).optional(),
  tags: tagsSchema.optional(),
  enabled: z.boolean().optional(),
}

export const createWebhookSchema = z
  .object({ ...fields, description: description.optional() })
  .meta({ id: "CreateWebhookRequest" })

/** What is absent stays as it is. */
export const updateWebhookSchema = z
  .object({
    ...fields,
    url: fields.url.optional(),
    description: description.nullable().optional().meta({ description: "null: none any more" }),
  })
  .meta({ id: "UpdateWebhookRequest" })

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
