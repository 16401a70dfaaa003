import { setTimeout as delay } from "node:timers/promises"

/** Rings for whoever waits for a word that may come at any time. */
export interface Bell {
  /** Forgets what has rung so far. */
  silence(): void
  /** Resolves when it has rung since it was silenced, else after `withinMs`. */
  rung(withinMs: number, signal: AbortSignal): Promise<void>
  close(): void
}

/** `listen` gets what rings it, and returns what stops that. */
export function openBell(listen: (ring: () => void) => (() => void) | undefined): Bell {
  let next = Promise.withResolvers<void>()
  const close = listen(() => next.resolve())
  return {
    silence: () => void (next = Promise.withResolvers()),
    async rung(withinMs, signal) {
      const stop = new AbortController()
      const either = AbortSignal.any([stop.signal, signal])
      // An abort ends the wait, as the bell does.
      const late = delay(withinMs, undefined, { signal: either }).catch(() => {})
      await Promise.race([next.promise, late])
      stop.abort()
    },
    close: () => close?.(),
  }
}
