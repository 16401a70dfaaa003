import { once } from "node:events"
import { get, type IncomingMessage } from "node:http"
import type { EventType } from "@stillframe/domain/events"
import { patienceMs } from "@stillframe/testing/patience"
import { token } from "./test-api.ts"

/** One block of a stream, its fields as they were sent. */
export interface Frame {
  readonly id?: string
  readonly event?: EventType | "reset" | "snapshot.progress"
  readonly retry?: string
  /** A line that parsers pass over. */
  readonly comment?: string
  // oxlint-disable-next-line typescript/no-explicit-any -- an event is what the test says it is
  readonly data?: any
}

export interface EventReader extends AsyncDisposable {
  readonly response: IncomingMessage
  /** The next block; undefined: the stream has ended, as it should or not. */
  next(): Promise<Frame | undefined>
  /**
   * The blocks with an event up to the first of any that satisfies `isLast`; throws when the stream ends
   * before.
   */
  until(isLast: (frame: Frame) => boolean): Promise<Frame[]>
  /** The blocks with an event up to the end of the stream. */
  rest(): Promise<Frame[]>
}

/** Follows `/events/stream` as a client does, over a connection of its own. */
export async function readEvents(
  { api: { url } }: { api: { readonly url: string } },
  query = "",
  { headers = {}, claims = { sub: "reader" } }: { headers?: Record<string, string>; claims?: object } = {},
): Promise<EventReader> {
  const sent = { authorization: `Bearer ${token(claims)}`, ...headers }
  const signal = AbortSignal.timeout(patienceMs)
  const request = get(`${url}/events/stream${query}`, { headers: sent, agent: false, signal })
  const [response] = (await once(request, "response")) as [IncomingMessage]
  const frames = framesOf(response)
  const next = async (): Promise<Frame | undefined> => (await frames.next()).value ?? undefined
  return {
    response,
    next,
    async until(isLast) {
      const seen: Frame[] = []
      for (;;) {
        const frame = await next()
        if (frame === undefined) throw new Error(`the stream ended after event ${seen.at(-1)?.id}`)
        if (frame.event !== undefined) seen.push(frame)
        if (isLast(frame)) return seen
      }
    },
    async rest() {
      const seen: Frame[] = []
      for (let frame = await next(); frame !== undefined; frame = await next())
        if (frame.event !== undefined) seen.push(frame)
      return seen
    },
    async [Symbol.asyncDispose]() {
      response.destroy()
      if (!response.closed) await once(response, "close")
    },
  }
}

async function* framesOf(response: IncomingMessage): AsyncGenerator<Frame, void> {
  let text = ""
  response.setEncoding("utf8")
  try {
    for await (const chunk of response) {
      text += chunk as string
      const blocks = text.split("\n\n")
      text = blocks.pop() ?? ""
      for (const block of blocks) yield frameOf(block)
    }
  } catch (error) {
    // Cut off in the middle; what was complete has been seen.
    if ((error as NodeJS.ErrnoException).code !== "ECONNRESET") throw error
  }
}

function frameOf(block: string): Frame {
  const fields = block.split("\n").map((line) => {
    const [, name = "", value = ""] = /^(\w*): (.*)$/.exec(line) ?? []
    if (name === "") return ["comment", value] as const
    return [name, name === "data" ? JSON.parse(value) : value] as const
  })
  return Object.fromEntries(fields)
}
