import { subscribe } from "node:diagnostics_channel"

/** A message of undici about a request; `socket` comes with its headers, `error` with its end. */
interface Published {
  readonly request: object
  readonly socket?: object
  readonly error?: unknown
}

/** Sockets over which an answer has come. */
const used = new WeakSet<object>()
const unanswered = new WeakMap<object, object>()
const closedMeanwhile = new WeakSet<object>()

subscribe("undici:client:sendHeaders", (message) => {
  const { request, socket } = message as Published
  if (socket !== undefined) unanswered.set(request, socket)
})
subscribe("undici:request:headers", (message) => {
  const { request } = message as Published
  const socket = unanswered.get(request)
  if (socket !== undefined) used.add(socket)
  unanswered.delete(request)
})
subscribe("undici:request:error", (message) => {
  const { request, error } = message as Published
  const socket = unanswered.get(request)
  if (socket !== undefined && used.has(socket) && error instanceof Error) closedMeanwhile.add(error)
})

const closeCodes: ReadonlySet<string | undefined> = new Set(["UND_ERR_SOCKET", "ECONNRESET", "EPIPE"])

/**
 * True when a request of undici failed because its connection, kept from an earlier request, was closed
 * before an answer: the receiver may have closed it just when the request was sent.
 */
export function wasClosedWhileKept(error: unknown): boolean {
  return (
    error instanceof Error && closedMeanwhile.has(error) && closeCodes.has((error as { code?: string }).code)
  )
}
