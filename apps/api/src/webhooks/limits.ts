import type { Database } from "@stillframe/db/schema"
import { countWebhooks } from "@stillframe/db/webhooks/count"
import { StillframeError } from "@stillframe/domain/errors"

/** How many webhooks there may be. One event is one request to each of them. */
export interface WebhookLimits {
  readonly perInstallation: number
  /** Limits the webhooks to one host name or address, on any port. */
  readonly perHost: number
}

/**
 * Throws `conflict` when one more webhook to the URL is beyond a limit. Until the transaction ends others
 * wait for it. `changed`: the id of the webhook that gets the URL, which is not counted.
 */
export async function assertWebhookRoom(
  tx: Database,
  limits: WebhookLimits | undefined,
  { url, changed }: { url: string; changed?: string },
): Promise<void> {
  if (limits === undefined) return
  // `a.example.` is the same host.
  const hostname = new URL(url).hostname.replace(/\.+$/, "")
  const { all, toHost } = await countWebhooks(tx, { host: hostname, except: changed })
  if (toHost >= limits.perHost)
    throw full(`there are ${toHost} webhooks to ${hostname}, the most for one host`, "WEBHOOKS_PER_HOST")
  if (all >= limits.perInstallation) throw full(`there are ${all} webhooks, the most allowed`, "WEBHOOKS_MAX")
}

function full(reason: string, setting: string): StillframeError {
  return new StillframeError("conflict", `${reason}; delete one that is not needed, or raise ${setting}`)
}
