import { StillframeError } from "@stillframe/domain/errors"

/**
 * The parameters of a URL's query as text: one given twice becomes a comma-separated list, and
 * `tags[key]=value` (OpenAPI's `deepObject`) becomes an object. The key is everything between the outer
 * brackets, so `tags[0]`, `tags[a.b]` and `tags[a/b]` are what they say. Throws `bad_request`.
 */
export function parseQuery(url: string): Record<string, unknown> {
  const start = url.indexOf("?")
  const values = new Map<string, string>()
  const tags = new Map<string, string>()
  for (const [name, value] of new URLSearchParams(start === -1 ? "" : url.slice(start + 1))) {
    const key = tagPattern.exec(name)?.[1]
    if (key === undefined) {
      const earlier = values.get(name)
      values.set(name, earlier === undefined ? value : `${earlier},${value}`)
    } else if (tags.has(key) && tags.get(key) !== value) {
      throw new StillframeError(
        "bad_request",
        `parameter "tags" in query has an error: key ${JSON.stringify(key)} is given twice`,
      )
    } else {
      tags.set(key, value)
    }
  }
  if (tags.has("__proto__")) throw new StillframeError("bad_request", protoKeyMessage)
  return { ...Object.fromEntries(values), ...(tags.size > 0 && { tags: Object.fromEntries(tags) }) }
}

const tagPattern = /^tags\[(.*)\]$/s

/** Such a key would be dropped on the way, and what was asked for silently not be done. */
export const protoKeyMessage = 'the key "__proto__" is not allowed; choose another'

/** The JSON pointer of a member (RFC 6901); long keys are cut. */
export function jsonPointer(path: readonly PropertyKey[]): string {
  const steps = path.map(
    (key) => `/${String(key).slice(0, keyShownMax).replaceAll("~", "~0").replaceAll("/", "~1")}`,
  )
  return steps.join("") || "/"
}

const keyShownMax = 200
