import { existsSync } from "node:fs"
import { join } from "node:path"
import { fileError } from "@stillframe/codec/frames/files"
import { StillframeError } from "@stillframe/domain/errors"
import { scopeEffects, scopes, type Scope } from "@stillframe/domain/scopes"
import { parseDuration } from "@stillframe/domain/text/duration"
import { parseEnv, processEnv, type Env } from "@stillframe/runtime/env"
import { secretFile } from "@stillframe/runtime/secrets"
import { secretSettings, storageSettings } from "@stillframe/runtime/settings"
import { assertOpen } from "./files/standard-stream.ts"
import { printLine } from "./print-line.ts"
import { mintToken } from "./token.ts"

export interface TokenOptions {
  /** Empty: the token allows everything. */
  readonly scope: readonly string[]
  /** A duration such as `24h`. */
  readonly expires: string
  readonly subject: string
}

/** `token`: prints a token for the API that runs with this environment's `JWT_SECRET` or `DATA_DIR`. */
export async function printToken({ scope, expires, subject }: TokenOptions): Promise<void> {
  try {
    assertOpen(1)
    const { secret, from } = await signingSecret(processEnv())
    const granted = knownScopes(scope)
    const options = { subject, ...(granted.length > 0 && { scopes: granted }) }
    await printLine(await mintToken(secret, lifetimeSeconds(expires), options))
    // Apart from the token, which scripts read.
    console.error(`The token is signed with ${from}.\n${effectsOf(granted)}`)
  } catch (error) {
    const failure = fileError(error)
    if (!(failure instanceof StillframeError)) throw error
    console.error(failure.message)
    process.exitCode = 1
  }
}

/**
 * The secret of the API that `npm start` runs with this environment, found as it finds it. None is made here.
 */
async function signingSecret(env: Env): Promise<{ secret: string; from: string }> {
  if (env["JWT_SECRET"] === undefined && env["DATABASE_URL"] === undefined) {
    const file = join(parseEnv({ DATA_DIR: storageSettings.DATA_DIR }, env).DATA_DIR, "jwt-secret")
    if (existsSync(file)) return { secret: await secretFile(file), from: file }
  }
  const { JWT_SECRET } = parseEnv({ JWT_SECRET: secretSettings.JWT_SECRET }, env)
  return { secret: JWT_SECRET, from: "JWT_SECRET of the environment" }
}

function effectsOf(granted: readonly Scope[]): string {
  if (granted.length === 0) return "The token allows every call; --scope narrows it."
  return ["A token with", ...granted.map((scope) => `  ${scope}: ${scopeEffects[scope]}`)].join("\n")
}

/** The API would refuse a token with a misspelt scope later, and not say why. */
function knownScopes(asked: readonly string[]): readonly Scope[] {
  const known = scopes.filter((scope) => asked.includes(scope))
  const unknown = asked.find((scope) => !known.some((each) => each === scope))
  if (unknown === undefined) return known
  throw new StillframeError(
    "invalid_request",
    `there is no scope "${unknown}"; use one or more of ${scopes.join(", ")}`,
  )
}

function lifetimeSeconds(expires: string): number {
  const ms = parseDuration(expires)
  if (ms !== undefined && ms >= 1_000) return Math.floor(ms / 1_000)
  throw new StillframeError(
    "invalid_request",
    `--expires ${expires} must be a number with a unit (s, m or h) and at least 1s, such as 90s, 15m or 24h`,
  )
}
