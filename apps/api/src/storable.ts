import { jsonPointer, protoKeyMessage } from "./query.ts"

/** Deeper than any request needs, and less than what overflows the stack of who writes it as JSON again. */
const depthMax = 64

/**
 * Refuses what JSON can say and Postgres or JavaScript cannot keep: a NUL character, half a surrogate pair, the key
 * `__proto__` (however it is escaped), and values nested deeper than 64 levels. Throws what `mistake` makes of the reason.
 */
export function assertStorable(value: unknown, mistake: (reason: string) => Error): void {
  walk(value, [])

  function walk(inner: unknown, path: readonly string[]): void {
    if (typeof inner === "string") return assertText(inner, "string", path)
    if (typeof inner !== "object" || inner === null) return
    if (path.length >= depthMax) throw mistake(`it is nested deeper than ${depthMax} levels`)
    for (const [key, member] of Object.entries(inner)) {
      if (key === "__proto__") throw mistake(protoKeyMessage)
      assertText(key, "a key", path)
      walk(member, [...path, key])
    }
  }

  function assertText(text: string, what: string, path: readonly string[]): void {
    const fault = textFault(text)
    if (fault !== undefined) throw mistake(`Error at "${jsonPointer(path)}": ${what} ${fault}`)
  }
}

function textFault(text: string): string | undefined {
  if (text.includes("\0")) return "must not hold a NUL character"
  return text.isWellFormed() ? undefined : "must be well-formed Unicode: it holds half a surrogate pair"
}
