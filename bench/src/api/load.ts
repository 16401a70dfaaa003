import { Agent, request } from "node:http"

export interface LoadRequest {
  readonly method: "GET" | "POST"
  readonly path: string
  readonly body?: object
  /** Any other is an error. */
  readonly status: number
}

export interface Load {
  readonly url: string
  readonly token: string
  /** Kept alive, each with one request at a time. */
  readonly connections: number
  readonly requests: number
  /** The nth request, from 0. */
  make(n: number): LoadRequest
}

export interface Loaded {
  /** Milliseconds of each request, from its writing to the last byte of its answer. */
  readonly ms: readonly number[]
  readonly perSecond: number
}

/** Sends the requests over so many connections. Throws at the first answer that is not the expected one. */
export async function load(what: Load): Promise<Loaded> {
  const agent = new Agent({ keepAlive: true, maxSockets: what.connections })
  const ms: number[] = []
  let sent = 0
  const connection = async (): Promise<void> => {
    while (sent < what.requests) {
      const next = what.make(sent++)
      const startedAt = performance.now()
      await answered(agent, what, next)
      ms.push(performance.now() - startedAt)
    }
  }
  const startedAt = performance.now()
  try {
    await Promise.all(Array.from({ length: what.connections }, connection))
    return { ms, perSecond: (1_000 * ms.length) / (performance.now() - startedAt) }
  } finally {
    agent.destroy()
  }
}

function answered(agent: Agent, { url, token }: Load, { method, path, body, status }: LoadRequest) {
  const text = body === undefined ? undefined : JSON.stringify(body)
  const headers = {
    authorization: `Bearer ${token}`,
    ...(text !== undefined && { "content-type": "application/json", "content-length": text.length }),
  }
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const sent = request(`${url}${path}`, { method, agent, headers }, (response) => {
    response.on("error", reject).on("end", resolve).resume()
    if (response.statusCode !== status)
      reject(new Error(`${method} ${path} answered ${response.statusCode}, not ${status}`))
  })
  sent.on("error", reject)
  sent.end(text)
  return promise
}
