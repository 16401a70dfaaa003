import { StillframeError } from "@stillframe/domain/errors"
import { idPattern } from "@stillframe/domain/ids"
import type { Call } from "../http/route.ts"

/** The webhook's id in a path. Throws `not_found` for what can be none. */
export function webhookIdOf({ params: { id = "" } }: Pick<Call<unknown, unknown>, "params">): string {
  if (!idPattern.test(id)) throw webhookNotFound()
  return id
}

export function webhookNotFound(): StillframeError {
  return new StillframeError("not_found", "webhook not found")
}

/** Refused, because a disabled webhook would only let it wait. */
export function webhookDisabled(): StillframeError {
  return new StillframeError(
    "conflict",
    "the webhook is disabled, so nothing is sent to it; enable it first with PATCH and `enabled: true`",
  )
}
