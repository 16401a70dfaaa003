import type { Writable } from "node:stream"
import type { Made } from "@stillframe/db/snapshots/idempotency"
import type { Scope } from "@stillframe/domain/scopes"
import type { z } from "zod"
import type { Prefer } from "./prefer.ts"
import type { RequestIdentity } from "./request-identity.ts"

/** An answer as a value; without a body nothing is sent after the headers. */
export interface Answer {
  readonly status: number
  readonly body?: object
  /** In the place of `body`: it as JSON already. */
  readonly json?: string
  readonly headers?: Readonly<Record<string, string>>
  /**
   * In the place of `body`: writes what has no end, until it ends or destroys `out` itself. Throws nothing.
   */
  readonly stream?: (out: Writable) => void
  /** Called when all of it was handed to the connection. */
  readonly onSent?: () => void
}

/** A request that has passed every check that does not need the database. */
export interface Call<Query, Body> {
  /** Path and query as they were asked. */
  readonly url: string
  readonly params: Readonly<Record<string, string>>
  readonly query: Query
  readonly body: Body
  readonly prefer: Prefer
  readonly identity: RequestIdentity
  /** A hash of who sent it: see `Bearer`. Empty on routes without a token. */
  readonly caller: string
  /** As it was sent, whatever it is. */
  readonly lastEventId: string | undefined
  /** True if the token allows the scope, which may be more than the route asks for. */
  readonly allows: (scope: Scope) => boolean
  /** How long the token was good when the request came; Infinity: for ever. */
  readonly expiresInMs: number
  /**
   * Calls `listener` when the request's token is revoked, at once if it is, until the returned function is
   * called.
   */
  readonly onRevoked: (listener: () => void) => () => void
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal
}

export interface AlsoScope<Body> {
  readonly scope: Scope
  // A method, as `handle` is.
  /** Absent: for every body. */
  when?(body: Body): boolean
}

export interface Route<Query extends z.ZodObject = z.ZodObject, Body extends z.ZodType = z.ZodType> {
  readonly method: "get" | "post" | "patch" | "delete"
  /** As Express writes it. */
  readonly path: string
  readonly operationId: string
  /** One line of the reference. */
  readonly summary: string
  /** Schemas of the answers by status; null: without a body. */
  readonly answers: Readonly<Record<number, z.ZodType | null>>
  /** Errors beyond those that follow from the rest of the route. */
  readonly errors?: readonly number[]
  /** The scope that the token must have; absent: no token is required. */
  readonly scope?: Scope
  /** Enough in the place of `scope`; a refusal names `scope`, as the contract has it. */
  readonly narrowerScope?: Scope
  /** Must be allowed as well, for every body or for some. */
  readonly alsoScope?: AlsoScope<z.output<Body>>
  readonly query?: Query
  /** Parameters of the query that must be there, though the handler is the one to say so. */
  readonly judgesAbsent?: readonly string[]
  /** The schema's `id` is the name that the validator's messages use. */
  readonly body?: Body
  /** Stands for a missing body; absent: a body is required. */
  readonly emptyBody?: object
  /** The largest body in KiB, where its schema allows more than 64. */
  readonly bodyKibMax?: number
  /** True if `Prefer` can hold the answer. */
  readonly holds?: boolean
  /** True if answers are streams of server-sent events, which go on from `Last-Event-ID`. */
  readonly streams?: boolean
  // A method, not a property: a list holds routes of different queries and bodies.
  handle(call: Call<z.output<Query>, z.output<Body>>): Promise<Answer>
  /** Answers a request whose `Idempotency-Key` has made something before. */
  replay?(call: Call<z.output<Query>, z.output<Body>>, made: Made): Promise<Answer>
}

/** Gives a route's handler the types of its schemas. */
export function route<Query extends z.ZodObject = z.ZodObject, Body extends z.ZodType = z.ZodType>(
  definition: Route<Query, Body>,
): Route {
  return definition
}
