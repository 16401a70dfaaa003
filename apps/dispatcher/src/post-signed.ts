import { Webhook } from "standardwebhooks"
import { request, type Dispatcher } from "undici"

export interface SignedPost {
  readonly url: string
  /** The same for every try, so that a receiver can tell a repetition. */
  readonly id: string
  readonly body: string
  /** `whsec_` and base64. */
  readonly secret: string
  readonly agent: Dispatcher
  readonly signal: AbortSignal
}

const attemptMs = 15_000
const answerBytesMax = 64 * 1_024

/**
 * One attempt by the rules of Standard Webhooks: signed over the very bytes that are sent, no redirect followed, at most
 * 15 s. Returns the answer's status; its body is read up to a limit, so that the connection can be used again, and dropped.
 */
export async function postSigned({ url, id, body, secret, agent, signal }: SignedPost): Promise<number> {
  const sentAt = new Date()
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(attemptMs)])
  const answer = await request(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "user-agent": "stillframe",
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(sentAt.getTime() / 1_000)),
      "webhook-signature": new Webhook(secret).sign(id, sentAt, body),
    },
    body,
    dispatcher: agent,
    signal: deadline,
  })
  try {
    await answer.body.dump({ limit: answerBytesMax, signal: deadline })
  } catch {
    // The status has been received, and that is all that counts.
  }
  return answer.statusCode
}
