import { Client } from "pg"

/** `operations`: a row waits for the publisher. `events`: a row waits for its number, so something has changed. */
export type Channel = "operations" | "events"

const notifyIntervalMs = 5
const reconnectMs = 500

export interface Waker {
  /** Says, after a commit, that there is something to see. Coalesced: at most one NOTIFY per 5 ms and channel. */
  wake(channel: Channel): void
  /** Calls `listener` on each NOTIFY and after each reconnection, since one may have been lost. Returns the way to stop. */
  listen(channel: Channel, listener: () => void): () => void
  close(): Promise<void>
}

/**
 * A connection of its own for LISTEN and NOTIFY: a NOTIFY inside a working transaction would hold a lock on the whole
 * database across that commit's fsync. A lost wake-up costs its reader one polling interval, so errors only reconnect.
 */
export async function openWaker({
  url,
  onError,
}: {
  url: string
  onError: (error: Error) => void
}): Promise<Waker> {
  const listeners: Record<Channel, Set<() => void>> = { operations: new Set(), events: new Set() }
  // A channel in here was notified less than 5 ms ago; true: and has been woken again since.
  const recent = new Map<Channel, boolean>()
  let client: Client | undefined
  let retry: NodeJS.Timeout | undefined
  let closed = false
  let sent: Promise<unknown> = Promise.resolve()

  async function connect(): Promise<void> {
    const next = new Client({ connectionString: url, keepAlive: true })
    next.on("error", (error) => lose(next, error))
    next.on("end", () => lose(next, new Error("the connection for LISTEN ended")))
    next.on("notification", ({ channel }) => call(channel as Channel))
    await next.connect()
    await next.query("listen operations; listen events")
    if (closed) return next.end()
    client = next
    call("operations")
    call("events")
  }

  function lose(lost: Client, error: Error): void {
    if (closed || (client !== undefined && lost !== client) || retry !== undefined) return
    client = undefined
    onError(error)
    retry = setTimeout(() => {
      retry = undefined
      connect().catch((failed: Error) => lose(lost, failed))
    }, reconnectMs)
  }

  function call(channel: Channel): void {
    for (const listener of listeners[channel]) listener()
  }

  function notify(channel: Channel): void {
    if (closed) return
    recent.set(channel, false)
    // One after the other: a client that is given a second query at the same time is deprecated in pg.
    sent = sent.then(() => client?.query(`notify ${channel}`)).catch(onError)
    setTimeout(() => {
      const again = recent.get(channel)
      recent.delete(channel)
      if (again) notify(channel)
    }, notifyIntervalMs)
  }

  try {
    await connect()
  } catch (error) {
    // The end of the failed connection is still to be told, and must not start a retry that nobody owns.
    closed = true
    clearTimeout(retry)
    throw error
  }
  return {
    wake(channel) {
      if (recent.has(channel)) recent.set(channel, true)
      else notify(channel)
    },
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
