import { expect, test } from "vitest"
import { connectionRefusal } from "./connection-refusal.ts"

const url = "postgres://app:hidden@db.example/stillframe?sslmode=require"

/** As pg throws them. */
const cases: readonly (readonly [code: string | undefined, said: string, words: string])[] = [
  [
    "ECONNREFUSED",
    "connect ECONNREFUSED 10.0.0.1:5432",
    "nothing listens there. Start it, or correct DATABASE_URL.",
  ],
  ["ENOTFOUND", "getaddrinfo ENOTFOUND db.example", "no address is known for that name. Correct the host in"],
  ["EAI_AGAIN", "getaddrinfo EAI_AGAIN db.example", "the name server does not answer. Check the DNS"],
  ["ETIMEDOUT", "connect ETIMEDOUT 10.0.0.1:5432", "it does not answer. Check the network"],
  [undefined, "Connection terminated due to connection timeout", "it does not answer. Check the network"],
  [undefined, "Connection terminated unexpectedly", "it closed the connection. Check that it runs"],
  [
    "28P01",
    'password authentication failed for user "app"',
    "it refuses the user or the password. Correct DATABASE_URL.",
  ],
  [
    undefined,
    "SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string",
    "it asks for a password. Give one",
  ],
  [
    "28000",
    'no pg_hba.conf entry for host "10.0.0.2", user "app", no encryption',
    "it takes connections with TLS only",
  ],
  ["28000", 'role "app" is not permitted to log in', "it does not let this user in. Correct DATABASE_URL"],
  [
    undefined,
    "The server does not support SSL connections",
    "it does not speak TLS. Take sslmode out of DATABASE_URL",
  ],
  ["SELF_SIGNED_CERT_IN_CHAIN", "self-signed certificate in certificate chain", "its certificate is not one"],
  ["3D000", 'database "stillframe" does not exist', "the database does not exist. Create it"],
  ["53300", "sorry, too many clients already", "it has no connection to spare. Raise max_connections"],
  ["53300", 'too many connections for role "app"', "it has no connection to spare for this user. Raise"],
  ["57P03", "the database system is starting up", "it does not take connections yet. Wait"],
  ["08P01", "server login has been failing, try again later", "the pooler there has no Postgres behind it."],
]

test.each(cases)("%s %s is told with the place, the reason and the remedy", (code, said, words) => {
  const error = Object.assign(new Error(said), code !== undefined && { code })

  const told = connectionRefusal(error, { url })

  expect(told).toMatchObject({ code: "unavailable", said, cause: error })
  expect(told?.message).toContain(`cannot reach Postgres at db.example:5432: ${words}`)
  expect(told?.message).not.toMatch(/hidden|app/)
})

test("the setting is the one that names the server, and a socket is a place too", () => {
  const error = Object.assign(new Error("connect ENOENT"), { code: "ENOENT" })
  const socket = "postgres://app@localhost/stillframe?host=/run/postgresql"

  expect(connectionRefusal(error, { url: socket, setting: "DATABASE_DIRECT_URL" })?.message).toBe(
    "cannot reach Postgres at /run/postgresql:5432: there is no such socket. Start it, or correct DATABASE_DIRECT_URL.",
  )
})

test("each address of a host may refuse", () => {
  const refused = Object.assign(new Error("connect ECONNREFUSED ::1:5432"), { code: "ECONNREFUSED" })

  expect(connectionRefusal(new AggregateError([refused, refused]), { url })?.message).toContain(
    "nothing listens there",
  )
})

test("an error of another kind has no such words", () => {
  expect(connectionRefusal(new Error("syntax error"), { url })).toBeUndefined()
})
