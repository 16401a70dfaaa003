import { createSecretKey } from "node:crypto"
import { StillframeError } from "@stillframe/domain/errors"
import type { Scope } from "@stillframe/domain/scopes"
import { jwtVerify, type JWTPayload } from "jose"
import { sha256 } from "./request-identity.ts"

/** Of the clocks of whoever made the token, in seconds. */
const leewaySeconds = 30
const algorithms = ["HS256", "HS384", "HS512"]

/** What a token's bearer may do. */
export interface Bearer {
  /** A hash of who it is: of the token's subject, else of the token. */
  readonly caller: string
  allows(scope: Scope): boolean
}

export type Authenticate = (authorization: string | undefined) => Promise<Bearer>

/** Checks bearer tokens signed with `secret`. Throws `unauthorized` with the contract's reasons. */
export function authenticator(secret: string): Authenticate {
  const key = createSecretKey(Buffer.from(secret))
  return async (authorization) => {
    if (authorization === undefined || authorization === "") throw refused("authorization header required")
    const token = bearerPattern.exec(authorization)?.[1]
    if (token === undefined) throw refused("invalid authorization header format")
    const { payload } = await jwtVerify(token, key, { algorithms, clockTolerance: leewaySeconds }).catch(
      (cause: unknown) => {
        throw refused("invalid token", { cause })
      },
    )
    if (isForeign(payload)) throw refused("invalid token type")
    const granted = permissions(payload)
    return {
      caller: sha256(typeof payload.sub === "string" ? `sub ${payload.sub}` : `token ${token}`),
      allows: (scope) => granted === "all" || granted.includes(scope),
    }
  }
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
