/** How long an answer may be held: below the 60 s after which the official clients give up. */
export const waitSecondsMax = 55

/** The preferences of the header `Prefer` (RFC 7240) that we support. */
export interface Prefer {
  readonly respondAsync: boolean
  /** 0 to 55. */
  readonly waitSeconds?: number
}

/** Preferences that we do not know or cannot read are ignored, as the RFC asks. */
export function parsePrefer(header: string | undefined): Prefer {
  // A preference's parameters follow a semicolon; none of ours has any. Of two, the first counts.
  const preferences = (header ?? "").split(",").map((part) => (part.split(";")[0] ?? "").trim().toLowerCase())
  const wait = preferences.map((part) => waitPattern.exec(part)?.[1]).find((seconds) => seconds !== undefined)
  return {
    respondAsync: preferences.includes("respond-async"),
    ...(wait !== undefined && { waitSeconds: Math.min(Number(wait), waitSecondsMax) }),
  }
}

const waitPattern = /^wait\s*=\s*"?(\d{1,9})"?$/

/**
 * Milliseconds that this answer may be held. `wait` counts for more than `respond-async`, which counts for
 * more than `unasked`.
 */
export function heldMs(prefer: Prefer, unasked: { seconds: number }): number {
  return (prefer.waitSeconds ?? (prefer.respondAsync ? 0 : unasked.seconds)) * 1_000
}

/** The header `Preference-Applied` of a request whose answer could be held. */
export function appliedPreference({ respondAsync, waitSeconds }: Prefer): string | undefined {
  if (waitSeconds !== undefined) return `wait=${waitSeconds}`
  return respondAsync ? "respond-async" : undefined
}
