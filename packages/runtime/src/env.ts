import { StillframeError } from "@stillframe/domain/errors"
import { z } from "zod"

export type Env = Readonly<Record<string, string | undefined>>

/**
 * The process's environment: the only place that names it. A variable that is set to nothing counts as unset.
 */
export function processEnv(): Env {
  return Object.fromEntries(Object.entries(process.env).filter(([, value]) => value !== ""))
}

/** A setting that cannot be used; the message holds the fault and the remedy, and no value of a secret. */
export interface SettingMistake {
  readonly name: string
  readonly message: string
}

/** Lists every mistake, one a line. */
export class SettingsError extends StillframeError {
  readonly mistakes: readonly SettingMistake[]

  constructor(mistakes: readonly SettingMistake[]) {
    const lines = mistakes.map(({ name, message }) => `  ${name}: ${message}`)
    super("invalid_request", `settings that can't be used:\n${lines.join("\n")}`)
    this.mistakes = mistakes
  }
}

/** Reads settings by their variables' names. Throws one `SettingsError` that lists every mistake. */
export function parseEnv<Shape extends z.ZodRawShape>(shape: Shape, env: Env): z.infer<z.ZodObject<Shape>> {
  const result = z.object(shape).safeParse(env)
  if (result.success) return result.data
  throw new SettingsError(result.error.issues.map(({ path, message }) => ({ name: path.join("."), message })))
}

/**
 * Calls every reader of settings. Throws one `SettingsError` with the mistakes of all, the first of each
 * setting.
 */
export function assertReadable(...readers: readonly (() => unknown)[]): void {
  const mistakes = new Map<string, SettingMistake>()
  for (const read of readers) {
    try {
      read()
    } catch (error) {
      if (!(error instanceof SettingsError)) throw error
      for (const mistake of error.mistakes)
        if (!mistakes.has(mistake.name)) mistakes.set(mistake.name, mistake)
    }
  }
  if (mistakes.size > 0) throw new SettingsError([...mistakes.values()])
}
