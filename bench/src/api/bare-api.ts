import { createSecretKey, randomUUID } from "node:crypto"
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import express, { type RequestHandler } from "express"
import { jwtVerify } from "jose"
import { Pool } from "pg"
import { createSql, listSql } from "./by-hand.ts"

// The reference that the API is measured against, a process of its own: a token checked, one statement, an
// answer. It checks nothing else, logs nothing and finds no instance: it has been told which one.

const { DATABASE_URL, JWT_SECRET = "", INSTANCE } = process.env
const instance = JSON.parse(INSTANCE ?? "") as { id: string; name: string; host: string; pool: string }
const key = createSecretKey(Buffer.from(JWT_SECRET))
const db = new Pool({ connectionString: DATABASE_URL, max: 10 })

const authenticate: RequestHandler = async (req, _res, next) => {
  await jwtVerify((req.headers.authorization ?? "").slice("Bearer ".length), key)
  next()
}

const app = express()
app.post("/instances/:id/snapshots", authenticate, express.json(), async (req, res) => {
  const { kind, name, tags } = req.body as { kind: string; name: string; tags: object }
  const id = randomUUID()
  const data = JSON.stringify({ id, kind, name, tags, source_instance_id: instance.id, status: "queued" })
  const values = [id, kind, name, JSON.stringify(tags), instance.id, instance.name, instance.host]
  const queue = `capture-${instance.host}`
  const ids = [randomUUID(), randomUUID()]
  const { rows } = await db.query(createSql, [...values, instance.pool, queue, data, ...ids])
  res.status(202).json(rows[0])
})
app.get("/snapshots", authenticate, async (req, res) => {
  const { tags, limit } = req.query
  const { rows } = await db.query(listSql, [tags, limit])
  res.json(rows)
})

const server = createServer(app).listen(0, "127.0.0.1")
await once(server, "listening")
const { port } = server.address() as AddressInfo
say({ msg: "listening", url: `http://127.0.0.1:${port}` })
say({ msg: "started" })

function say(line: object): void {
  console.error(JSON.stringify(line))
}
