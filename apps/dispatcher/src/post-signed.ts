import { createHmac, type KeyObject } from "node:crypto"
import { request } from "undici"
import type { Agents } from "./address-guard.ts"
import { wasClosedWhileKept } from "./kept-connections.ts"
import { retryAfterMs } from "./retry-after.ts"

export interface SignedPost {
  readonly url: string
  /** The same for every try, so that a receiver can tell a repetition. */
  readonly id: string
  readonly body: string
  /** Each signs. */
  readonly keys: readonly KeyObject[]
  readonly agents: Pick<Agents, "keeping" | "fresh">
  /** From the look-up of the name to the end of the answer. */
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

export interface Answer {
  readonly status: number
  /** Its first KiB. */
  readonly body: string
  readonly retryAfterMs: number | undefined
}

const keptBytesMax = 1_024
/** An answer longer than this costs its connection. */
const answerBytesMax = 64 * 1_024

/**
 * One attempt by the rules of Standard Webhooks: signed over the very bytes that are sent, no redirect
 * followed. A kept connection that the receiver closes before it answers is replaced by a new one, within the
 * same attempt. The answer's body is read up to a limit, so that the connection can be used again.
 */
export async function postSigned(post: SignedPost): Promise<Answer> {
  const { timeoutMs, signal } = post
  const ending = new AbortController()
  const end = (): void => ending.abort(signal.reason)
  const timer = setTimeout(
    () => ending.abort(new Error(`no answer within ${timeoutMs / 1_000} s`)),
    timeoutMs,
  )
  signal.addEventListener("abort", end)
  try {
    signal.throwIfAborted()
    return await send(post, "keeping", ending.signal).catch((error: unknown) => {
      // The receiver was tired of waiting, not of us. It may get the same `webhook-id` twice, as ever.
      if (!wasClosedWhileKept(error)) throw error
      return send(post, "fresh", ending.signal)
    })
  } finally {
    clearTimeout(timer)
    signal.removeEventListener("abort", end)
  }
}

async function send(post: SignedPost, agent: "keeping" | "fresh", signal: AbortSignal): Promise<Answer> {
  const answer = await request(post.url, {
    method: "POST",
    headers: signedHeaders(post),
    body: post.body,
    dispatcher: post.agents[agent],
    signal,
  })
  return {
    status: answer.statusCode,
    body: await beginning(answer.body),
    retryAfterMs: retryAfterMs(answer.headers),
  }
}

function signedHeaders({ id, body, keys }: SignedPost): Record<string, string> {
  const timestamp = String(Math.floor(Date.now() / 1_000))
  const signed = `${id}.${timestamp}.${body}`
  return {
    "content-type": "application/json",
    "user-agent": "stillframe",
    "webhook-id": id,
    "webhook-timestamp": timestamp,
    "webhook-signature": keys.map((key) => signature(key, signed)).join(" "),
  }
}

function signature(key: KeyObject, signed: string): string {
  return `v1,${createHmac("sha256", key).update(signed).digest("base64")}`
}

/** As text that a database takes: what is no UTF-8 is replaced, and so is NUL. */
async function beginning(body: AsyncIterable<Buffer>): Promise<string> {
  const kept: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of body) {
      if (bytes < keptBytesMax) kept.push(chunk.subarray(0, keptBytesMax - bytes))
      bytes += chunk.length
      if (bytes > answerBytesMax) break
    }
  } catch {
    // The status has been received, and that is all that counts.
  }
  return Buffer.concat(kept).toString("utf8").replaceAll("\0", "\uFFFD")
}
