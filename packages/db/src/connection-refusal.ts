import { StillframeError } from "@stillframe/domain/errors"

// too_many_connections, also where it is a role's or a database's limit.
const tooManyConnections = "53300"

/** True when Postgres has no connection to spare at present. */
export function isOutOfConnections(error: unknown): boolean {
  return (error as { code?: string } | null)?.code === tooManyConnections
}

const remedies: Readonly<Record<string, string>> = {
  [tooManyConnections]:
    "Postgres has no connection to spare ({why}). Raise max_connections or the role's CONNECTION LIMIT in Postgres, or lower DATABASE_CONNECTIONS.",
  "28P01": "Postgres refuses the user or the password ({why}). Correct DATABASE_URL.",
  "28000": "Postgres refuses the user ({why}). Correct DATABASE_URL, or pg_hba.conf of Postgres.",
  "3D000": "the database does not exist ({why}). Create it, or correct DATABASE_URL.",
  "42501": "the database user lacks a privilege ({why}). Grant it; on a schema: GRANT CREATE, USAGE.",
  "57P03": "Postgres does not accept connections yet ({why}). Start again when it does.",
  // A pooler's answer to a startup parameter that it does not know.
  "08P01":
    "the server of DATABASE_URL does not take the connection ({why}). Where it is a transaction-mode pooler, set DATABASE_DIRECT_URL to Postgres itself.",
}

/** A refused connection in words that end in a remedy; undefined for an error of another kind. Never holds a URL. */
export function connectionRefusal(error: unknown): StillframeError | undefined {
  if (error instanceof StillframeError) return error
  const { code = "", message } = error as { code?: string; message: string }
  const words = poolerAlone.test(message)
    ? unreachable
    : (remedies[code] ?? (networkErrors.test(`${code} ${message}`) ? unreachable : undefined))
  if (words === undefined) return undefined
  const why = message === "" ? code : message
  return new StillframeError(
    "unavailable",
    words.replace("{why}", () => why),
    { cause: error },
  )
}

const unreachable =
  "the database can't be reached: {why}. Check that Postgres runs and that DATABASE_URL names it."

/** A pooler's words while it has no Postgres behind it; their code is also that of a refused startup parameter. */
const poolerAlone = /server login has been failing|server conn crashed/

const networkErrors =
  /^(ECONNREFUSED|ECONNRESET|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN)\b|Connection terminated|server does not support SSL/
