import { format } from "node:util"
import type { Logger } from "./logger.ts"

/**
 * Libraries print some warnings to the console, where a reader of JSON lines stumbles over them: from here on
 * they are lines of the log. Returns how to undo it.
 */
export function logConsole(log: Logger): () => void {
  const { warn, error } = console
  Object.assign(console, {
    warn: (...words: unknown[]) => log.warn({ printed: format(...words) }, "a library warns"),
    error: (...words: unknown[]) => log.error({ printed: format(...words) }, "a library reports an error"),
  })
  return () => Object.assign(console, { warn, error })
}
