import { StillframeError } from "@stillframe/domain/errors"
import { z } from "zod"

export type Env = Readonly<Record<string, string | undefined>>

/** The process's environment: the only place that names it. A variable that is set to nothing counts as unset. */
export function processEnv(): Env {
  return Object.fromEntries(Object.entries(process.env).filter(([, value]) => value !== ""))
}

/** Reads settings by their variables' names; throws one `invalid_request` that lists every mistake, never a value. */
export function parseEnv<Shape extends z.ZodRawShape>(shape: Shape, env: Env): z.infer<z.ZodObject<Shape>> {
  const result = z.object(shape).safeParse(env)
  if (result.success) return result.data
  const mistakes = result.error.issues.map(({ path, message }) => `  ${path.join(".")}: ${message}`)
  throw new StillframeError("invalid_request", `settings that can't be used:\n${mistakes.join("\n")}`)
}
