import { jsonPointer, protoKeyMessage } from "./query.ts"

/** Deeper than any request needs, and less than what overflows the stack of a writer of JSON. */
const depthMax = 64

/** Many times what any request needs, and few enough to be judged in some milliseconds. */
const valuesMax = 4_096

/**
 * Refuses what JSON can say and Postgres or JavaScript cannot keep: a NUL character, half a surrogate pair,
 * the key `__proto__` (however it is escaped), and values nested deeper than 64 levels; and more than 4,096
 * values. Throws what `mistake` makes of the reason.
 */
export function assertStorable(value: unknown, mistake: (reason: string) => Error): void {
  const path: string[] = []
  let values = 0
  walk(value)

  function walk(inner: unknown): void {
    values += 1
    if (values > valuesMax) throw mistake(`it holds more than ${valuesMax} values; send fewer`)
    if (typeof inner === "string") return assertText(inner, "string", path)
    if (typeof inner !== "object" || inner === null) return
    if (path.length >= depthMax) throw mistake(`it is nested deeper than ${depthMax} levels`)
    // Not by Object.entries, which copies a list of any length before the first member is counted.
    for (const key in inner) {
      if (key === "__proto__") throw mistake(protoKeyMessage)
      assertText(key, "a key", path)
      path.push(key)
      walk((inner as Record<string, unknown>)[key])
      path.pop()
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
