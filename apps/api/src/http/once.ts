import { inTransaction } from "@stillframe/db/client"
import type { Database } from "@stillframe/db/schema"
import {
  findKept,
  KeyInProgress,
  KeyTaken,
  makeOnce,
  type KeptAnswer,
  type Made,
} from "@stillframe/db/snapshots/idempotency"
import { StillframeError } from "@stillframe/domain/errors"
import type { ApiDeps } from "./deps.ts"
import type { RequestIdentity } from "./request-identity.ts"
import type { Answer, Call, Route } from "./route.ts"

/** Runs `make` in a transaction that also keeps the request's `Idempotency-Key`, if it has one. */
export async function once<T extends Made>(
  { db, twinWaitMs }: ApiDeps,
  { keyed }: RequestIdentity,
  make: (tx: Database) => Promise<T>,
): Promise<T> {
  return keyed === undefined ? inTransaction(db, make) : makeOnce(db, keyed, { make, twinWaitMs })
}

/**
 * Handles a request, or answers it with what the same key has made before. That comes ahead of all that the
 * handler would judge: the instance may be gone by now, the name taken by the very resource.
 */
export async function handleOnce(
  { db }: ApiDeps,
  route: Route,
  call: Call<Record<string, unknown>, unknown>,
): Promise<Answer> {
  const { keyed } = call.identity
  if (keyed === undefined) return route.handle(call)
  const earlier = await findKept(db, keyed)
  if (earlier !== undefined) return replayed(earlier)
  try {
    return await route.handle(call)
  } catch (error) {
    if (error instanceof KeyInProgress)
      throw new StillframeError(
        "idempotency_in_progress",
        "the first request with this Idempotency-Key is still under way; try again",
        { cause: error },
      )
    const twin = error instanceof KeyTaken ? await findKept(db, keyed) : undefined
    if (twin === undefined) throw error
    return replayed(twin)
  }

  async function replayed(kept: KeptAnswer): Promise<Answer> {
    if (kept.bodyHash !== keyed?.bodyHash)
      throw new StillframeError(
        "idempotency_mismatch",
        "this Idempotency-Key was used with another request body; use a new key for a new request",
      )
    const answer = await route.replay?.(call, kept)
    return { status: 200, ...answer, headers: { ...answer?.headers, "Idempotent-Replayed": "true" } }
  }
}
