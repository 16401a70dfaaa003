import type { Logger } from "@stillframe/runtime/logger"
import type { RequestHandler, Response } from "express"
import { problem } from "../http/problem.ts"
import type { Answer } from "../http/route.ts"
import type { Authenticate, Bearer } from "./auth.ts"
import { openBuckets } from "./buckets.ts"
import { openClientAddress } from "./client-address.ts"

/** The limits of one caller and of one address; 0: without a limit. */
export interface RateLimits {
  /** Requests a second from one address that bring no valid token. */
  readonly perAddress: number
  /** Requests a second of one caller: of a token's subject, else of a token. */
  readonly perCaller: number
  /** Event streams of one caller at a time. */
  readonly streamsPerCaller: number
}

const noLimits: RateLimits = { perAddress: 0, perCaller: 0, streamsPerCaller: 0 }

/**
 * Judges the token of every request, for `bearerOf`, and answers a caller or a stranger that asks too often
 * with 429. `/health` is left out: it costs no more than the refusal, and the machine's own supervisor asks
 * it.
 */
export function limitRates(
  { limits = noLimits, log }: { limits?: RateLimits | undefined; log: Logger },
  { authenticate, refuse }: { authenticate: Authenticate; refuse: (res: Response, answer: Answer) => void },
): RequestHandler {
  const ofAddress = openBuckets(limits.perAddress)
  const ofCaller = openBuckets(limits.perCaller)
  const addressOf = openClientAddress(log)
  return async (req, res, next) => {
    if (req.path === "/health") return next()
    const judged = await authenticate(req.headers.authorization).catch((refusal: unknown) => ({ refusal }))
    res.locals["judged"] = judged
    const isCaller = !("refusal" in judged)
    const waitMs = isCaller ? ofCaller(judged.caller) : ofAddress(addressOf(req))
    if (waitMs === 0) return next()
    refuse(
      res,
      problem("limit_reached", isCaller ? tooMany.ofCaller(limits) : tooMany.ofAddress(limits), {
        retryAfterMs: waitMs,
      }),
    )
  }
}

const tooMany = {
  ofCaller: ({ perCaller }: RateLimits) =>
    `this caller sends more than ${perCaller} requests a second; send fewer, or raise CALLER_REQUESTS_PER_SECOND`,
  ofAddress: ({ perAddress }: RateLimits) =>
    `this address sends more than ${perAddress} requests a second without a valid token; send fewer, or send a token`,
}

/** The bearer of a request that `limitRates` has let through. Throws the refusal of its token. */
export function bearerOf(res: Response): Bearer {
  const judged = res.locals["judged"] as Bearer | { readonly refusal: unknown }
  if ("refusal" in judged) throw judged.refusal
  return judged
}
