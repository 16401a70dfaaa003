import { lookup } from "node:dns/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { urlRefusal, type Resolve } from "@stillframe/runtime/webhook-addresses"
import type { ApiDeps } from "../http/deps.ts"

const lookupMs = 2_000

/**
 * The dispatcher judges each connection; what it would always refuse is refused to the one who asks for it.
 * Throws `invalid_request` with the reason and a remedy.
 */
export async function refuseUnreachable({ webhookRules, resolve }: ApiDeps, url: string): Promise<void> {
  const refusal = await urlRefusal(new URL(url), webhookRules(), resolve)
  if (refusal !== undefined) throw new StillframeError("invalid_request", refusal)
}

/** As the system resolves a name, within 2 seconds: the answer to a request waits for it. */
export const resolveInTime: Resolve = async (hostname) => {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => reject(new Error(`${hostname} was not resolved in ${lookupMs} ms`)),
    lookupMs,
  )
  try {
    const found = await Promise.race([lookup(hostname, { all: true }), promise])
    return found.map(({ address }) => address)
  } finally {
    clearTimeout(timer)
  }
}
