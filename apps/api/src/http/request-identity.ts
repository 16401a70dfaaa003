import { createHash } from "node:crypto"
import type { KeyedRequest } from "@stillframe/db/snapshots/idempotency"
import type { CreateTry } from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"

/** Tells a repeated request from a new one. */
export interface RequestIdentity {
  /** With an `Idempotency-Key`. */
  readonly keyed?: KeyedRequest
  /** Set for a client that repeats by itself and says so, without a key. */
  readonly createTry?: CreateTry
}

/**
 * `caller`: a hash of who sent it. `body`: as it was understood. Throws `bad_request` for a key that is none.
 */
export function identifyRequest({
  method,
  path,
  key,
  retryCount,
  caller,
  body,
}: {
  method: string
  path: string
  key: string | undefined
  retryCount: string | undefined
  caller: string
  body: unknown
}): RequestIdentity {
  const bodyHash = sha256(JSON.stringify(body ?? null))
  if (key !== undefined) {
    if (!keyPattern.test(key))
      throw new StillframeError(
        "bad_request",
        'header "Idempotency-Key" has an error: it must be 1 to 255 visible ASCII characters',
      )
    return { keyed: { caller, method, path, key, bodyHash } }
  }
  if (retryCount === undefined || !/^\d{1,4}$/.test(retryCount)) return {}
  return { createTry: { hash: sha256(`${caller} ${method} ${path} ${bodyHash}`), retry: Number(retryCount) } }
}

export const keyPattern = /^[\x21-\x7e]{1,255}$/

export function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex")
}
