import { Client } from "pg"
import { Webhook } from "standardwebhooks"
import { Agent, request } from "undici"

// The reference that the dispatcher is measured against, a process of its own. On a NOTIFY of `bare_event` it
// reads the row and POSTs it; on one of `bare_run` it signs and POSTs the same body so many times. No retry,
// no record, no guard, no log.

const { DATABASE_URL, SECRET = "" } = process.env
const agent = new Agent()
const webhook = new Webhook(SECRET)
const db = new Client({ connectionString: DATABASE_URL })
await db.connect()

interface Run {
  readonly url: string
  readonly body: string
  readonly deliveries: number
  readonly concurrency: number
}

db.on("notification", ({ channel, payload = "" }) => {
  if (channel === "bare_event") void deliver(payload)
  else void run(JSON.parse(payload) as Run)
})
await db.query("listen bare_event; listen bare_run")
console.error(JSON.stringify({ msg: "started" }))

async function deliver(id: string): Promise<void> {
  const { rows } = await db.query<{ url: string; body: string }>({
    name: "event",
    text: "select url, body from bare_events where id = $1",
    values: [id],
  })
  for (const { url, body } of rows) await post(url, body, { "webhook-id": id })
}

async function run({ url, body, deliveries, concurrency }: Run): Promise<void> {
  let sent = 0
  const oneAfterAnother = async (): Promise<void> => {
    while (sent < deliveries) {
      const id = `bare-${sent++}`
      const sentAt = new Date()
      await post(url, body, {
        "webhook-id": id,
        "webhook-timestamp": String(Math.floor(sentAt.getTime() / 1_000)),
        "webhook-signature": webhook.sign(id, sentAt, body),
      })
    }
  }
  await Promise.all(Array.from({ length: concurrency }, oneAfterAnother))
}

async function post(url: string, body: string, headers: Record<string, string>): Promise<void> {
  const answer = await request(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body,
    dispatcher: agent,
  })
  await answer.body.dump()
}
