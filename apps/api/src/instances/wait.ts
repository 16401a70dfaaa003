import { resolveInstance } from "@stillframe/db/instances/shown"
import { StillframeError } from "@stillframe/domain/errors"
import { instanceStates, shownState, shownStateError, type InstanceState } from "@stillframe/domain/instance"
import { parseDuration } from "@stillframe/domain/text/duration"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { route, type Route } from "../http/route.ts"
import { waitUntil } from "../http/wait.ts"
import { waitedSchema } from "../openapi/resources.ts"

const timeoutMs = { unasked: 60_000, max: 5 * 60_000 }

/** The contract's own way of waiting: until an instance is in a state, or the time is up. */
export function instanceWaitRoutes(deps: ApiDeps): Route[] {
  return [
    route({
      method: "get",
      path: "/instances/:id/wait",
      operationId: "waitForInstanceState",
      summary: "Wait for a state of an instance",
      answers: { 200: waitedSchema },
      errors: [409],
      scope: "instance:read",
      // Both are judged by the handler: the contract has codes of their own for them.
      query: z.object({
        state: z.string().optional().meta({ enum: instanceStates, description: "The state to wait for." }),
        timeout: z
          .string()
          .min(1)
          .optional()
          .meta({
            description: "The longest wait, such as `30s` or `2m`. At most 5m; defaults to 60s.",
            examples: ["30s"],
          }),
      }),
      judgesAbsent: ["state"],
      async handle({ params: { id = "" }, query, signal }) {
        const awaited = awaitedState(query.state)
        const budgetMs = budget(query.timeout)
        let instance = await resolveInstance(deps.db, id)
        const reached = await waitUntil(
          deps,
          async () => {
            instance = await resolveInstance(deps.db, instance.id)
            return shownState(instance) === awaited || undefined
          },
          { timeoutMs: budgetMs, signal },
        )
        const stateError = shownStateError(instance)
        return {
          status: 200,
          body: {
            state: shownState(instance),
            ...(stateError !== undefined && { state_error: stateError }),
            timed_out: reached === undefined,
          },
        }
      },
    }),
  ]
}

function awaitedState(text = ""): InstanceState {
  const state = instanceStates.find((known) => known === text)
  if (state !== undefined) return state
  throw new StillframeError("invalid_awaited_state", `state must be one of ${instanceStates.join(", ")}`)
}

function budget(text: string | undefined): number {
  if (text === undefined) return timeoutMs.unasked
  const ms = parseDuration(text)
  if (ms === undefined || ms === 0)
    throw new StillframeError("invalid_timeout", 'timeout must be a duration such as "30s" or "2m"')
  return Math.min(ms, timeoutMs.max)
}
