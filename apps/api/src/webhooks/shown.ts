import { withOriginOnly, type WebhookResource } from "@stillframe/domain/webhook"
import type { Call } from "../http/route.ts"

/** The webhook as this caller may see it: without `webhook:read`, only the origin of its URL. */
export function shownTo<Shown extends WebhookResource>(
  { allows }: Pick<Call<unknown, unknown>, "allows">,
  webhook: Shown,
): Shown {
  return allows("webhook:read") ? webhook : { ...webhook, ...withOriginOnly(webhook) }
}
