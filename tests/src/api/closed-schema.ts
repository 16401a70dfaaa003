/** A description may leave out nothing that is shown; for clients it stays open to what comes later. */
export function closed(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(closed)
  if (typeof value !== "object" || value === null) return value
  const inner = Object.fromEntries(Object.entries(value).map(([key, one]) => [key, closed(one)]))
  const isObject = "properties" in inner && inner["type"] === "object"
  return isObject ? { ...inner, additionalProperties: false } : inner
}
