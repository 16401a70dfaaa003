import { setSession } from "@stillframe/domain/postgres/session"
import { Client } from "pg"
import { connectionRefusal } from "./connection-refusal.ts"

/**
 * `operations`: a row waits for the publisher. `events`: a row waits for its number, so something has
 * changed. `numbered`: rows have got theirs, so the feed goes on. `deliveries`: some have become due.
 */
const wakeChannels = ["operations", "events", "numbered", "deliveries"] as const
export type WakeChannel = (typeof wakeChannels)[number]
/** `progress`: how far a piece of work is; its senders and its words are in progress.ts. */
type Channel = WakeChannel | "progress"

const notifyIntervalMs = 5
const reconnectMs = 500
const connectMs = 10_000

export interface Waker {
  /**
   * Says, after a commit, that there is something to see. Coalesced: at most one NOTIFY of each channel per 5
   * ms.
   */
  wake(channel: WakeChannel): void
  /**
   * Calls `listener` with the payload of each NOTIFY; a wake-up has none, and comes also after each
   * reconnection, since one may have been lost. Returns the way to stop.
   */
  listen(channel: Channel, listener: (payload: string) => void): () => void
  close(): Promise<void>
}

/**
 * A connection of its own for LISTEN and NOTIFY: a NOTIFY inside a working transaction would hold a lock on
 * the whole database across that commit's fsync. A lost wake-up costs its reader one polling interval, so
 * errors only reconnect.
 */
export async function openWaker({
  url,
  setting,
  onError,
  onConnected = () => undefined,
}: {
  url: string
  /** That names `url`: `DATABASE_URL` unless given. */
  setting?: string
  onError: (error: Error) => void
  onConnected?: () => void
}): Promise<Waker> {
  const listeners: Record<Channel, Set<(payload: string) => void>> = {
    operations: new Set(),
    events: new Set(),
    numbered: new Set(),
    deliveries: new Set(),
    progress: new Set(),
  }
  let client: Client | undefined
  let retry: NodeJS.Timeout | undefined
  let closed = false

  async function connect(): Promise<void> {
    const { next, lost } = await connectListening(url, call)
    if (closed) return next.end()
    client = next
    onConnected()
    void lost.then(reconnect)
    for (const channel of wakeChannels) call(channel)
  }

  function reconnect(reason: Error): void {
    client = undefined
    if (closed) return
    onError(inWords(reason))
    retry = setTimeout(() => void connect().catch(reconnect), reconnectMs)
  }

  function call(channel: Channel, payload = ""): void {
    for (const listener of listeners[channel]) listener(payload)
  }

  function inWords(error: Error): Error {
    return connectionRefusal(error, { url, ...(setting !== undefined && { setting }) }) ?? error
  }

  await connect().catch((error: Error) => {
    throw inWords(error)
  })
  return {
    wake: coalesced(async (channels) => {
      const notify = channels.map((channel) => `notify ${channel}`).join("; ")
      if (!closed) await client?.query(notify).catch(onError)
    }),
    listen(channel, listener) {
      listeners[channel].add(listener)
      return () => void listeners[channel].delete(listener)
    },
    async close() {
      closed = true
      clearTimeout(retry)
      await client?.end()
    },
  }
}

/** `lost` resolves with the reason once the connection is of no use. */
async function connectListening(
  url: string,
  call: (channel: Channel, payload: string) => void,
): Promise<{ next: Client; lost: Promise<Error> }> {
  const next = new Client({
    connectionString: url,
    keepAlive: true,
    // A server that dies may leave a connection in its backlog that nothing ever answers.
    connectionTimeoutMillis: connectMs,
    fallback_application_name: "stillframe notifications",
  })
  // A connection that breaks says so twice, by an error and by its end; it is replaced once.
  const { promise: lost, resolve } = Promise.withResolvers<Error>()
  next.on("error", resolve)
  next.on("end", () => resolve(new Error("the connection for LISTEN ended")))
  next.on("notification", ({ channel, payload = "" }) => call(channel as Channel, payload))
  try {
    await next.connect()
    await next.query(setSession)
    await next.query([...wakeChannels, "progress"].map((channel) => `listen ${channel}`).join("; "))
    return { next, lost }
  } catch (error) {
    await next.end()
    throw error
  }
}

/**
 * After the event loop's turn of the first call, so that the answer that the caller is about to write goes
 * out before; then at most once per interval, and always once after the last call.
 */
function coalesced(
  send: (channels: readonly WakeChannel[]) => Promise<void>,
): (channel: WakeChannel) => void {
  const wanted = new Set<WakeChannel>()
  let waiting = false
  // One after the other: pg deprecates a second query while the first is under way.
  let sent = Promise.resolve()

  function flush(): void {
    waiting = wanted.size > 0
    if (!waiting) return
    const channels = [...wanted]
    wanted.clear()
    sent = sent.then(() => send(channels))
    setTimeout(flush, notifyIntervalMs)
  }

  return function want(channel) {
    wanted.add(channel)
    if (waiting) return
    waiting = true
    setImmediate(flush)
  }
}
