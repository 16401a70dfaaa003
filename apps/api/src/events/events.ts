import { listEvents } from "@stillframe/db/events/events"
import { readEventHead } from "@stillframe/db/events/head"
import { StillframeError } from "@stillframe/domain/errors"
import { chosenEventTypes, eventChoices } from "@stillframe/domain/events"
import { z } from "zod"
import type { ApiDeps } from "../http/deps.ts"
import { idSchema, listInQuery, numberInQuery } from "../http/input/schemas.ts"
import { problem } from "../http/problem.ts"
import { route, type Answer, type Route } from "../http/route.ts"
import { eventSchema, eventsRemovedSchema } from "../openapi/resources.ts"

const eventsPerAnswer = { max: 1_000, unasked: 100 }

/** The feed: a bare array, oldest first; a reader goes on with `after` = the last `sequence` it has seen. */
export function eventRoutes({ db }: ApiDeps): Route[] {
  return [
    route({
      method: "get",
      path: "/events",
      operationId: "listEvents",
      summary: "List events, oldest first",
      answers: { 200: z.array(eventSchema), 410: eventsRemovedSchema },
      scope: "event:read",
      query: z.object({
        after: numberInQuery({ min: 0, max: Number.MAX_SAFE_INTEGER })
          .optional()
          .meta({ description: "The sequence of the last event that you have read. Defaults to 0." }),
        limit: numberInQuery({ min: 1, max: eventsPerAnswer.max })
          .optional()
          .meta({ description: "The most events in the answer. Defaults to 100." }),
        types: listInQuery(eventChoices)
          .optional()
          .meta({ description: "Only events of these types; `snapshot.*` stands for all of a kind." }),
        snapshot_id: idSchema.optional().meta({ description: "Only events of this snapshot." }),
        instance_id: idSchema
          .optional()
          .meta({ description: "Only events of this instance and of its snapshots." }),
      }),
      async handle({ query }) {
        const events = await listEvents(db, {
          after: query.after ?? 0,
          limit: query.limit ?? eventsPerAnswer.unasked,
          types: query.types && chosenEventTypes(query.types),
          subjectId: query.snapshot_id,
          instanceId: query.instance_id,
        })
        // Numbers are dense, so whoever gets the next one has missed none.
        if (query.after === undefined || events[0]?.sequence === query.after + 1)
          return { status: 200, body: events }
        const { sequence: head, oldest } = await readEventHead(db)
        if (query.after > head) throw neverReached(query.after, head)
        return query.after + 1 < oldest ? tooLate(oldest) : { status: 200, body: events }
      },
    }),
  ]
}

/** Some that the reader has not seen are gone: it must not take what is left for the whole. */
function tooLate(oldest: number): Answer {
  const text = `events before ${oldest} are no longer kept; read the resources anew and go on with after=${oldest - 1}`
  const answer = problem("events_removed", text)
  return { ...answer, body: { ...answer.body, oldest } }
}

/**
 * The reader is ahead of this feed, so it has read another one: it would wait for the same numbers, and miss
 * their events.
 */
function neverReached(after: number, head: number): StillframeError {
  return new StillframeError(
    "invalid_request",
    `the last event is ${head}, so after=${after} is from another feed or from before the database was restored; ` +
      `read the resources again and continue with after=${head}`,
  )
}
