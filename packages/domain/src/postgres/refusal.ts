import { sentence, unreachable, type Server } from "../unreachable.ts"

interface Refusal {
  readonly code: string
  /** Matches Postgres's words, where its code is not enough. */
  readonly words?: RegExp
  readonly why: string
  readonly remedy: string
}

const noMoreConnections =
  "Raise max_connections or the role's CONNECTION LIMIT in Postgres, or lower DATABASE_CONNECTIONS."

/** By the code of Postgres; the first that fits counts. */
const refusals: readonly Refusal[] = [
  {
    code: "53300",
    words: /for role/,
    why: "it has no connection to spare for this user",
    remedy: noMoreConnections,
  },
  { code: "53300", why: "it has no connection to spare", remedy: noMoreConnections },
  { code: "28P01", why: "it refuses the user or the password", remedy: "Correct {setting}." },
  {
    code: "28000",
    words: /no encryption|SSL off/,
    why: "it takes connections with TLS only, or none from this machine",
    remedy: "Add sslmode=verify-full to {setting}, or let this machine in by pg_hba.conf of Postgres.",
  },
  {
    code: "28000",
    why: "it does not let this user in",
    remedy: "Correct {setting}, or pg_hba.conf of Postgres.",
  },
  { code: "3D000", why: "the database does not exist", remedy: "Create it, or correct {setting}." },
  {
    code: "57P03",
    why: "it does not take connections yet",
    remedy: "Wait until it has started, then start again.",
  },
  {
    code: "57P01",
    why: "it ended the connection",
    remedy: "Check that Postgres runs and what its log says.",
  },
]

const poolerAlone = {
  why: "the pooler there has no Postgres behind it",
  remedy: "Start Postgres, or correct the pooler's configuration.",
}

/** Clients give these errors no code of Postgres. */
const byWords: readonly (readonly [RegExp, { readonly why: string; readonly remedy: string }])[] = [
  // A pooler's words; their code is also that of a refused startup parameter.
  [/server login has been failing|server conn crashed/, poolerAlone],
  [
    /server does not support SSL/,
    { why: "it does not speak TLS", remedy: "Take sslmode out of {setting}, or turn on TLS in Postgres." },
  ],
  [
    /SASL.*password must be|password must be a string/,
    { why: "it asks for a password", remedy: "Give one in {setting}." },
  ],
]

/** The reason and remedy if Postgres cannot be reached or refuses a login; otherwise undefined. */
export function postgresRefusal(server: Server, error: Error): string | undefined {
  const { code } = error as { readonly code?: string }
  const worded = byWords.find(([words]) => words.test(error.message))?.[1]
  const refusal =
    worded ??
    refusals.find((one) => one.code === code && (one.words === undefined || one.words.test(error.message)))
  return refusal === undefined ? unreachable(server, error) : sentence(server, refusal)
}
