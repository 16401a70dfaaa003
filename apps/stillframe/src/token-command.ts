import { StillframeError } from "@stillframe/domain/errors"
import { parseEnv, processEnv } from "@stillframe/runtime/env"
import { secretSettings } from "@stillframe/runtime/settings"
import { mintToken } from "./token.ts"

/** `token`: prints a token for the API that runs with this environment's `JWT_SECRET`; it expires after `hours`. */
export async function printToken(hours: number): Promise<void> {
  try {
    const { JWT_SECRET } = parseEnv({ JWT_SECRET: secretSettings.JWT_SECRET }, processEnv())
    console.log(await mintToken(JWT_SECRET, hours * 3_600))
  } catch (error) {
    if (!(error instanceof StillframeError)) throw error
    console.error(error.message)
    process.exitCode = 1
  }
}
