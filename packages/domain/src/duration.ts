/** Milliseconds of a Go duration such as `1h30m`, `2.5s` or `0`; undefined for what is none, or less than nothing. */
export function parseDuration(text: string): number | undefined {
  if (text === "0") return 0
  if (!durationPattern.test(text)) return undefined
  let ms = 0
  for (const [, amount, unit] of text.matchAll(partPattern))
    ms += Number(amount) * (unitMs[unit as keyof typeof unitMs] ?? 0)
  return ms
}

const durationPattern =
  /^\+?(\d{1,9}(\.\d{0,9})?|\.\d{1,9})(ns|us|µs|ms|s|m|h)((\d{1,9}(\.\d{0,9})?|\.\d{1,9})(ns|us|µs|ms|s|m|h)){0,20}$/
const partPattern = /(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)/g
const unitMs = { ns: 1e-6, us: 1e-3, µs: 1e-3, ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const
