import { randomBytes } from "node:crypto"
import { join } from "node:path"
import { openDatabase, type OwnedDatabase } from "@stillframe/db/client"
import { openWaker, type Waker } from "@stillframe/db/connection/wake"
import { migrate } from "@stillframe/db/migrate"
import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { sealSecret } from "@stillframe/runtime/secrets"
import { sql } from "kysely"
import { startProgram, startScript, type Program } from "../program.ts"

/** The dispatcher and a bare loop, processes of their own on one Postgres, with a database each. */
export interface Sides {
  readonly db: OwnedDatabase
  readonly waker: Waker
  readonly dispatcher: Program
  readonly bareDb: OwnedDatabase
  readonly sealed: Buffer
}

export async function startSides(resources: AsyncDisposableStack, dir: string): Promise<Sides> {
  const password = randomBytes(16).toString("hex")
  const { url } = resources.use(await startEmbeddedPostgres({ dataDir: join(dir, "postgres"), password }))
  const db = open(resources, url)
  await migrate(db)
  await sql`create database bare`.execute(db)
  const bareUrl = new URL(url)
  bareUrl.pathname = "/bare"
  const bareDb = open(resources, bareUrl.href)
  await sql`create table bare_events (id text primary key, url text, body text)`.execute(bareDb)
  const waker = await openWaker({ url, onError: () => undefined })
  resources.defer(() => waker.close())
  const secret = `whsec_${randomBytes(32).toString("base64")}`
  const key = randomBytes(32).toString("hex")
  const env = { DATABASE_URL: url, SECRETS_KEY: key, WEBHOOK_ALLOWED_CIDRS: "127.0.0.0/8" }
  const dispatcher = resources.use(await startProgram("dispatcher", env))
  const bareEnv = { DATABASE_URL: bareUrl.href, SECRET: secret }
  resources.use(await startScript("bench/src/webhooks/bare.ts", bareEnv))
  return { db, waker, dispatcher, bareDb, sealed: sealSecret(key, secret) }
}

function open(resources: AsyncDisposableStack, url: string): OwnedDatabase {
  const db = openDatabase({ url, onIdleError: () => undefined })
  resources.defer(() => db.destroy())
  return db
}
