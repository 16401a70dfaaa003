import { createHmac } from "node:crypto"
import { once } from "node:events"
import type { ApiConfig } from "@stillframe/api/config"
import { startApi, type RunningApi } from "@stillframe/api/start"
import { clockPlus, type OwnedDatabase } from "@stillframe/db/client"
import type { Waker } from "@stillframe/db/connection/wake"
import { appendSnapshotEvent, numberEvents } from "@stillframe/db/events/events"
import { compressionHeartbeat } from "@stillframe/db/hosts/compression-workers"
import { heartbeat } from "@stillframe/db/hosts/register"
import { advanceInstance, createInstance, type InstanceRow } from "@stillframe/db/instances/instances"
import { openMigrated } from "@stillframe/db/open"
import type { Capabilities } from "@stillframe/domain/capabilities"
import type { CompressionConfig } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import type { InstanceState, SnapshotPolicy } from "@stillframe/domain/instance"
import { qemuCapabilities } from "@stillframe/hypervisors/qemu/probe/capabilities"
import { createLogger } from "@stillframe/runtime/logger"
import type { Resolve } from "@stillframe/runtime/webhook-addresses"
import { testDatabase } from "@stillframe/testing/database"
import { patienceMs } from "@stillframe/testing/patience"
import { alterDatabase } from "../db/alter-database.ts"
import { snapshotRecord } from "../events/records.ts"

export const jwtSecret = "a secret of the tests, 32 bytes long"
export const secretsKey = "another secret, 32 bytes of it or so"

export interface Reply {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  /** The parsed body; throws when it is no JSON. */
  // oxlint-disable-next-line typescript/no-explicit-any -- an answer is what the test says it is
  readonly body: any
}

/** Of answers that came in no particular order. */
export function statuses(replies: readonly Reply[]): number[] {
  return replies.map(({ status }) => status).toSorted((one, other) => one - other)
}

export interface Ask {
  /** An object is sent as JSON, a string as it is. */
  readonly body?: unknown
  readonly headers?: Record<string, string>
  /** Claims of the token; null: no token. */
  readonly claims?: object | null
  readonly signal?: AbortSignal
}

export interface TestApi extends AsyncDisposable {
  readonly api: RunningApi
  readonly db: OwnedDatabase
  readonly databaseUrl: string
  readonly waker: Waker
  ask(method: string, path: string, ask?: Ask): Promise<Reply>
  /**
   * Registers a host that is up for as long as a test takes, with a QEMU that is `hostQemu` where it isn't
   * said otherwise.
   */
  host(name: string, change?: Partial<Capabilities>): Promise<void>
  /** The last heartbeat of a host is a minute ago. */
  loseHost(name: string): Promise<void>
  /**
   * Registers an instance on the host `h1`, whose pool has a compression-worker; running unless told
   * otherwise.
   */
  instance(name: string, options?: { state?: InstanceState; policy?: SnapshotPolicy }): Promise<InstanceRow>
}

export const hostQemu = qemuCapabilities(
  { version: "7.2.22" },
  { live_capture: false, reason: "QEMU 7.2.22 can't do that" },
)

const lifeMs = 3_600_000

/**
 * Longer than a busy machine stands still: `fetch` does not repeat what it sent into a connection that was
 * just being closed.
 */
export const keepAliveMs = 120_000

/** Enough for a commit, and not for a test's patience. */
const twinWaitMs = 500

/**
 * An API of its own, over HTTP, on a database of its own. Webhooks may lead to loopback unless told
 * otherwise.
 */
export async function testApi({
  compression = { enabled: false },
  snapshotCreate = "async",
  streamHeartbeatMs = 15_000,
  webhookAllowedCidrs = ["127.0.0.0/8"],
  resolve = async () => [],
  ready,
  databaseDefaults = [],
  ...bounds
}: {
  compression?: CompressionConfig
  snapshotCreate?: "async" | "sync"
  streamHeartbeatMs?: number
  webhookAllowedCidrs?: readonly string[]
  resolve?: Resolve
  /** Until then the API is starting. */
  ready?: Promise<void>
  /** Settings that the database has before anything connects to it, such as `datestyle = 'German'`. */
  databaseDefaults?: readonly string[]
} & Pick<
  ApiConfig,
  | "keepAliveMs"
  | "requestMs"
  | "limits"
  | "webhookLimits"
  | "openCaptures"
  | "trustedProxies"
  | "readyCacheMs"
> = {}): Promise<TestApi> {
  await using opened = new AsyncDisposableStack()
  const { url } = opened.use(await testDatabase())
  if (databaseDefaults.length > 0) await alterDatabase(url, ...databaseDefaults)
  const log = createLogger({ service: "api", level: "silent" })
  const config = { databaseUrl: url, databaseDirectUrl: url, listenHost: "127.0.0.1", port: 0 }
  const keys = { jwtSecret, secretsKey }
  const webhooks = { webhookAllowedCidrs, resolve }
  const times = { twinWaitMs, streamHeartbeatMs, keepAliveMs }
  const behaviour = { compression, snapshotCreate, ...times, ...webhooks, ...bounds }
  const database = await openMigrated(opened, { ...config, log })
  const { db, waker } = database
  const options = { database, ...(ready !== undefined && { ready }) }
  const api = opened.use(await startApi({ ...config, ...keys, ...behaviour }, log, options))
  const host: TestApi["host"] = async (name, change) => {
    await heartbeat(db, {
      name,
      hostId: name,
      bootId: "boot",
      pool: `pool-of-${name}`,
      hypervisors: { qemu: { ...hostQemu, ...change } },
    })
    // It stays up however long the test takes.
    await db
      .updateTable("hosts")
      .set({ heartbeat_at: clockPlus(lifeMs) })
      .where("name", "=", name)
      .execute()
  }
  const resources = opened.move()
  return {
    api,
    db,
    databaseUrl: url,
    waker,
    ask: (method, path, ask = {}) => request(api.url, method, path, ask),
    host,
    async loseHost(name) {
      await db
        .updateTable("hosts")
        .set({ heartbeat_at: clockPlus(-60_000) })
        .where("name", "=", name)
        .execute()
    },
    async instance(name, { state = "Running", policy } = {}) {
      await host("h1")
      await compressionHeartbeat(db, { name: "h1", pool: "pool-of-h1", codecs: { zstd: "", lz4: "" } })
      await db
        .updateTable("compression_workers")
        .set({ heartbeat_at: clockPlus(lifeMs) })
        .execute()
      const created = await createInstance(db, {
        name,
        image: "heartbeat",
        hypervisor: "qemu",
        host: "h1",
        launch: { image: "heartbeat" },
        vcpus: 1,
        memoryMib: 64,
        snapshotPolicy: policy,
      })
      return state === "Initializing" ? created : ((await advanceInstance(db, created.id, state)) ?? created)
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

/** So many events of one snapshot are written and numbered, and whoever waits for them is woken. */
export async function happen(
  { db, waker }: Pick<TestApi, "db" | "waker">,
  events: number,
  snapshot = snapshotRecord(),
): Promise<void> {
  for (let n = 0; n < events; n += 1) await appendSnapshotEvent(db, "snapshot.created", snapshot)
  await numberEvents(db)
  waker.wake("numbered")
}

/** A JSON Web Token, made by hand so that a test can make wrong ones. */
export function token(claims: object, { alg = "HS256", secret = jwtSecret } = {}): string {
  const signed = `${encode({ alg })}.${encode(claims)}`
  return `${signed}.${createHmac(alg.replace("HS", "sha"), secret).update(signed).digest("base64url")}`
}

export function encode(part: object): string {
  return Buffer.from(JSON.stringify(part)).toString("base64url")
}

/** Asks over plain HTTP, with a token that may do everything unless told otherwise. */
export async function request(
  url: string,
  method: string,
  path: string,
  { body, headers = {}, claims = { sub: "tester" }, signal }: Ask,
): Promise<Reply> {
  const sent = new Headers({
    ...(claims !== null && { authorization: `Bearer ${token(claims)}` }),
    ...(body !== undefined && { "content-type": "application/json" }),
    ...headers,
  })
  const response = await fetch(`${url}${path}`, {
    method,
    headers: sent,
    ...(body !== undefined && { body: typeof body === "string" ? body : JSON.stringify(body) }),
    ...(signal !== undefined && { signal }),
  })
  const text = await response.text()
  return {
    status: response.status,
    headers: response.headers,
    text,
    get body() {
      return JSON.parse(text)
    },
  }
}

/** Calls `look` now and after each wake-up of `channel` until it finds something. */
export async function whenWoken<T>(
  { waker }: Pick<TestApi, "waker">,
  channel: "operations" | "events",
  look: () => Promise<T | undefined>,
): Promise<T> {
  const woken = new EventTarget()
  const stop = waker.listen(channel, () => woken.dispatchEvent(new Event("woken")))
  const signal = AbortSignal.timeout(patienceMs)
  try {
    for (;;) {
      const next = once(woken, "woken", { signal })
      const found = await look()
      if (found !== undefined) {
        next.catch(() => {})
        return found
      }
      await next
    }
  } catch (cause) {
    throw signal.aborted ? new StillframeError("timeout", `nothing came on "${channel}"`, { cause }) : cause
  } finally {
    stop()
  }
}
