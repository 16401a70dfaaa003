import { StillframeError } from "@stillframe/domain/errors"
import type { ApiDeps } from "./deps.ts"
import type { Route } from "./route.ts"

// Their rows and files would take the room that deleting needs. Work that frees room is never refused.
const creating: ReadonlySet<string> = new Set([
  "createInstance",
  "createInstanceSnapshot",
  "createWebhook",
  "forkSnapshot",
  "recoverWebhook",
  "replayWebhook",
  "resendDelivery",
  "restoreInstanceSnapshot",
  "testWebhook",
])

/**
 * Throws `insufficient_storage` for a request that creates something while the database's disk is almost
 * full.
 */
export function refuseWhenFull({ operationId }: Route, { databaseProblem }: ApiDeps): void {
  const problem = creating.has(operationId) ? databaseProblem?.() : undefined
  if (problem !== undefined) throw new StillframeError(problem.code, problem.message)
}
