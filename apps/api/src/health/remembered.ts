/**
 * Makes a value once for all who ask while it is being made and for `ttlMs` afterwards. A failure is given to
 * those who wait for it, and not kept.
 */
export function remembered<T>(make: () => Promise<T>, ttlMs: number): () => Promise<T> {
  let kept: { readonly value: Promise<T>; goodUntilMs: number } | undefined
  return () => {
    if (kept !== undefined && performance.now() < kept.goodUntilMs) return kept.value
    const value = make()
    const made = { value, goodUntilMs: Infinity }
    kept = made
    value.then(
      () => (made.goodUntilMs = performance.now() + ttlMs),
      () => (made.goodUntilMs = 0),
    )
    return value
  }
}
