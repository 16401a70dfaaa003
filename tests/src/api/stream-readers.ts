import { once } from "node:events"
import { get, type IncomingMessage } from "node:http"
import { parentPort, workerData } from "node:worker_threads"

/**
 * How a thread of clients follows `/events/stream`; it is theirs alone, so that their work holds no loop but
 * their own.
 */
export interface StreamReaders {
  readonly url: string
  readonly authorizations: readonly string[]
  /** False: they read only the head of the answer. */
  readonly read: boolean
}

const { url, authorizations, read } = workerData as StreamReaders

const responses = await Promise.all(
  authorizations.map(async (authorization) => {
    const asked = get(url, { headers: { authorization }, agent: false })
    const [response] = (await once(asked, "response")) as [IncomingMessage]
    return response.on("error", () => {})
  }),
)
parentPort?.postMessage({ open: true }, [])
if (read) {
  const seen = responses.map(() => 0)
  let told = 0
  for (const [index, response] of responses.entries())
    onIds(response, (id) => {
      seen[index] = id
      const all = Math.min(...seen)
      if (all > told) parentPort?.postMessage({ seen: (told = all) }, [])
    })
}

function onIds(response: IncomingMessage, onId: (id: number) => void): void {
  let tail = ""
  response.setEncoding("latin1")
  response.on("data", (chunk: string) => {
    const text = tail + chunk
    const at = text.lastIndexOf("\nid: ")
    const id = Number(/^\nid: (\d+)\n/.exec(text.slice(at, at + 24))?.[1] ?? 0)
    if (at !== -1 && id > 0) onId(id)
    tail = text.slice(-24)
  })
}
