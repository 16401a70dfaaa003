import { configFromEnv as apiConfig } from "@stillframe/api/config"
import { configFromEnv as captureConfig } from "@stillframe/capture-worker/config"
import { configFromEnv as compressionConfig } from "@stillframe/compression-worker/config"
import { configFromEnv as dispatcherConfig } from "@stillframe/dispatcher/config"
import { assertReadable, SettingsError, type Env } from "@stillframe/runtime/env"

/**
 * Reads the settings of all four roles before anything is started. Throws one `SettingsError` that lists
 * every mistake.
 */
export function assertSettings(env: Env): void {
  const settings = { ...madeAtStart(env), ...env }
  assertReadable(
    () => assertShared(env),
    () => apiConfig(settings),
    // The dispatcher is told the port that the API has got.
    () => dispatcherConfig({ ...settings, PORT: undefined }),
    () => compressionConfig(settings),
    () => captureConfig(settings),
  )
}

/** Values for settings that the start makes by itself, of the form that it gives them. */
function madeAtStart(env: Env): Env {
  if (env["DATABASE_URL"] !== undefined) return {}
  const secret = "-".repeat(32)
  return { DATABASE_URL: "postgres://localhost/made", JWT_SECRET: secret, SECRETS_KEY: secret }
}

/** With a database that others use, secrets made here would make every process refuse the others' tokens. */
function assertShared(env: Env): void {
  if (env["DATABASE_URL"] === undefined) return
  const missing = ["JWT_SECRET", "SECRETS_KEY"].filter((name) => env[name] === undefined)
  if (missing.length === 0) return
  throw new SettingsError(
    missing.map((name) => ({
      name,
      message:
        "must be set where DATABASE_URL is, to the secret that every process of the installation has: at least 32 characters that cannot be guessed",
    })),
  )
}
