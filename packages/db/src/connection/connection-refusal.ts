import { StillframeError } from "@stillframe/domain/errors"
import { postgresRefusal } from "@stillframe/domain/postgres/refusal"
import { serverAt } from "@stillframe/domain/unreachable"

// too_many_connections, also where it is a role's or a database's limit.
const tooManyConnections = "53300"

/** True when Postgres has no connection to spare at present. */
export function isOutOfConnections(error: unknown): boolean {
  return (error as { code?: string } | null)?.code === tooManyConnections
}

/** Refusals of what a connection asks for, by the code of Postgres. */
const demands: Readonly<Record<string, string>> = {
  "42501": "the database user lacks a privilege. Grant it; on a schema: GRANT CREATE, USAGE.",
  // A pooler's answer to a startup parameter that it does not know.
  "08P01":
    "the server of DATABASE_URL does not take the connection. Where it is a transaction-mode pooler, set DATABASE_DIRECT_URL to Postgres itself.",
}

/** Which connection was refused. */
export interface Refused {
  readonly url: string | undefined
  /** `DATABASE_URL` unless named. */
  readonly setting?: string
}

/**
 * A refused connection in words that say to where, why, and what to do; the driver's own are in `said`.
 * Undefined for an error of another kind. Never holds a password.
 */
export function connectionRefusal(
  error: unknown,
  { url, setting = "DATABASE_URL" }: Refused,
): StillframeError | undefined {
  if (error instanceof StillframeError) return error
  if (!(error instanceof Error)) return undefined
  const { code = "" } = error as NodeJS.ErrnoException
  const words = postgresRefusal(serverAt("Postgres", { url, setting }), error) ?? demands[code]
  if (words === undefined) return undefined
  return new StillframeError("unavailable", words, { cause: error, said: error.message || code })
}
