import type { Writable } from "node:stream"
import { readEventHead } from "@stillframe/db/events/head"
import { StillframeError } from "@stillframe/domain/errors"
import { chosenEventTypes, eventChoices, progressType } from "@stillframe/domain/events"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { idSchema, listInQuery, numberInQuery } from "../http/input/schemas.ts"
import { route, type Route } from "../http/route.ts"
import { eventStreamSchema } from "../openapi/resources.ts"
import { streamEvents, type StreamRequest } from "./stream.ts"

const positionSchema = numberInQuery({ min: 0, max: Number.MAX_SAFE_INTEGER })

const streamQuery = z.object({
  after: positionSchema
    .optional()
    .meta({ description: "The sequence of the last event that you have read. Defaults to the newest one." }),
  types: listInQuery([...eventChoices, progressType])
    .optional()
    .meta({ description: "Only events of these types; `snapshot.*` stands for all of a kind." }),
  snapshot_id: idSchema.optional().meta({ description: "Only events of this snapshot." }),
  instance_id: idSchema
    .optional()
    .meta({ description: "Only events of this instance and of its snapshots." }),
})

const headers = {
  "Content-Type": "text/event-stream",
  "Cache-Control": "no-store",
  // Proxies that gather answers would hold events back.
  "X-Accel-Buffering": "no",
  // The connection serves nothing after it, and an idle one would hold up the end of the process.
  Connection: "close",
}

/** The feed as server-sent events, by a token in the header only: one in the URL would be in every log. */
export function eventStreamRoutes(deps: ApiDeps): Route[] {
  const slots = openSlots(deps.limits?.streamsPerCaller ?? 0)
  return [
    route({
      method: "get",
      path: "/events/stream",
      operationId: "streamEvents",
      summary: "Stream events",
      answers: { 200: eventStreamSchema },
      streams: true,
      scope: "event:read",
      query: streamQuery,
      async handle({ query, lastEventId, expiresInMs, onRevoked, signal, caller }) {
        const asked = positionOf(lastEventId) ?? query.after
        const head = await readEventHead(deps.db)
        const token = { expiresInMs, onRevoked }
        const request = { ...filterOf(query), after: asked ?? head.sequence, head, ...token, signal }
        // No turn of the loop lies between this and the call of `stream`, so none is let in beyond the limit.
        slots.assertFree(caller)
        const stream = async (out: Writable): Promise<void> => {
          using _slot = slots.take(caller)
          await streamEvents(deps, out, request)
        }
        return { status: 200, headers, stream: (out) => void stream(out) }
      },
    }),
  ]
}

/** Counts the open streams of each caller. `limit` 0: no limit. */
function openSlots(limit: number): { assertFree(caller: string): void; take(caller: string): Disposable } {
  const taken = new Map<string, number>()
  return {
    assertFree(caller) {
      if (limit === 0 || (taken.get(caller) ?? 0) < limit) return
      throw new StillframeError(
        "limit_reached",
        `this caller has ${limit} event streams open; close one, or raise CALLER_STREAMS`,
      )
    },
    take(caller) {
      taken.set(caller, (taken.get(caller) ?? 0) + 1)
      return {
        [Symbol.dispose]() {
          const left = (taken.get(caller) ?? 1) - 1
          if (left === 0) taken.delete(caller)
          else taken.set(caller, left)
        },
      }
    },
  }
}

/** Throws `bad_request` for one that is none of ours. */
function positionOf(lastEventId: string | undefined): number | undefined {
  const { success, data } = positionSchema.optional().safeParse(lastEventId)
  if (success) return data
  throw new StillframeError(
    "bad_request",
    'header "Last-Event-ID" has an error: it must be the id of an event, a whole number; leave it out to start now',
  )
}

function filterOf({
  types,
  snapshot_id,
  instance_id,
}: z.output<typeof streamQuery>): Pick<StreamRequest, "filter" | "withProgress"> {
  const withProgress = types === undefined || types.includes(progressType) || types.includes("snapshot.*")
  const filter = {
    types: types && chosenEventTypes(types),
    subjectId: snapshot_id,
    instanceId: instance_id,
  }
  return { filter, withProgress }
}
