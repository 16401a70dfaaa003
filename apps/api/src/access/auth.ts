import { createSecretKey, type KeyObject } from "node:crypto"
import { StillframeError } from "@stillframe/domain/errors"
import type { Scope } from "@stillframe/domain/scopes"
import { errors, jwtVerify, type JWTPayload } from "jose"
import { LRUCache } from "lru-cache"
import { sha256 } from "../http/request-identity.ts"

/** The tolerated difference to the clock of the token's maker. */
const leewaySeconds = 30
/** How many tokens are remembered, and for how long at most. */
const knownMax = 1_000
const knownSecondsMax = 300
const algorithms = ["HS256", "HS384", "HS512"]

/** The rights of a token's bearer. */
export interface Bearer {
  /** A hash of who it is: of the token's subject, else of the token. */
  readonly caller: string
  allows(scope: Scope): boolean
  /** How long the token stays good, leeway included; Infinity: for ever. */
  expiresInMs(): number
  /** Calls `listener` when the token is revoked, at once if it is, until the returned function is called. */
  onRevoked(listener: () => void): () => void
}

/** Rules for tokens beside the secret that signs them; each may be absent. */
export interface TokenRules {
  /** Tokens of the secret before a rotation are good too. */
  readonly previousSecret?: string | undefined
  /** Refuses tokens that never end. */
  readonly requireExp?: boolean | undefined
  /** True if the token with this `jti` was revoked. */
  isRevoked?(id: string): boolean
  /** Calls `listener` after other tokens are revoked than before, until the returned function is called. */
  onRevocations?(listener: () => void): () => void
  /** Called with the hash of a token that never ends, now and then. */
  onEndless?(tokenHash: string): void
}

export type Authenticate = (authorization: string | undefined) => Promise<Bearer>

/**
 * Checks bearer tokens signed with `secret`. A token that was good is known by its hash until it expires: a
 * caller sends the same one with each request. Throws `unauthorized` with the contract's reasons.
 */
export function authenticator(secret: string, rules: TokenRules = {}): Authenticate {
  const keys = [secret, rules.previousSecret]
    .filter((each) => each !== undefined)
    .map((each) => createSecretKey(Buffer.from(each)))
  // By the clock that tokens are of.
  const known = new LRUCache<string, Known>({ max: knownMax, perf: { now: () => Date.now() } })
  return async (authorization) => {
    if (authorization === undefined || authorization === "") throw refused("authorization header required")
    const token = bearerPattern.exec(authorization)?.[1]
    if (token === undefined) throw refused("invalid authorization header format")
    const tokenHash = sha256(`token ${token}`)
    const earlier = known.get(tokenHash)
    const payload =
      earlier?.payload ??
      (await verify(token, keys).catch((cause: unknown) => {
        throw refused("invalid token", { cause })
      }))
    if (payload.jti !== undefined && rules.isRevoked?.(payload.jti) === true) throw refused("token revoked")
    if (earlier !== undefined) return earlier.bearer
    if (isForeign(payload)) throw refused("invalid token type")
    if (payload.exp === undefined) {
      if (rules.requireExp === true) throw refused('token without "exp"; ask for one that expires')
      rules.onEndless?.(tokenHash)
    }
    const granted = permissions(payload)
    const bearer: Bearer = {
      caller: typeof payload.sub === "string" ? sha256(`sub ${payload.sub}`) : tokenHash,
      allows: (scope) => granted === "all" || granted.includes(scope),
      expiresInMs: () => expiresInSeconds(payload) * 1_000,
      onRevoked: (listener) => onRevoked(payload, rules, listener),
    }
    const goodForMs = goodForSeconds(payload) * 1_000
    if (goodForMs > 0) known.set(tokenHash, { bearer, payload }, { ttl: goodForMs })
    return bearer
  }
}

function onRevoked({ jti }: JWTPayload, rules: TokenRules, listener: () => void): () => void {
  if (jti === undefined) return () => {}
  const look = (): void => {
    if (rules.isRevoked?.(jti) === true) listener()
  }
  const stop = rules.onRevocations?.(look)
  look()
  return () => stop?.()
}

interface Known {
  readonly bearer: Bearer
  readonly payload: JWTPayload
}

/**
 * By the first of the keys that has signed it. Rejects when none has, or for a token that is over or not yet
 * good.
 */
async function verify(token: string, [key, ...others]: readonly KeyObject[]): Promise<JWTPayload> {
  if (key === undefined) throw new errors.JWSSignatureVerificationFailed()
  try {
    return (await jwtVerify(token, key, { algorithms, clockTolerance: leewaySeconds })).payload
  } catch (error) {
    if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error
    return verify(token, others)
  }
}

function goodForSeconds(payload: JWTPayload): number {
  return Math.min(knownSecondsMax, Math.floor(expiresInSeconds(payload)))
}

function expiresInSeconds({ exp = Infinity }: JWTPayload): number {
  return exp + leewaySeconds - Date.now() / 1_000
}

const bearerPattern = /^bearer +([^\s]+)$/i

/** Hypeman signs tokens for its registry and its builders with the same secret; they are not for the API. */
function isForeign(payload: JWTPayload): boolean {
  return (
    ["repos", "scope", "build_id"].some((claim) => Object.hasOwn(payload, claim)) ||
    (typeof payload.sub === "string" && payload.sub.startsWith("builder-"))
  )
}

/** No claim allows everything; one that is no list of strings allows nothing. */
function permissions(payload: JWTPayload): "all" | readonly string[] {
  if (!Object.hasOwn(payload, "permissions")) return "all"
  const claim = payload["permissions"]
  if (!Array.isArray(claim) || !claim.every((scope): scope is string => typeof scope === "string")) return []
  return claim.includes("*") ? "all" : claim
}

function refused(reason: string, options?: ErrorOptions): StillframeError {
  return new StillframeError("unauthorized", `security requirements failed: ${reason}`, options)
}
