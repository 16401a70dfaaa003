/** Milliseconds of a Go duration such as `1h30m`, `2.5s` or `0`; undefined if it is malformed or negative. */
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

/** Milliseconds as Go writes a duration: `1h0m0s`, `1.5s`, `250ms`, `0s`. */
export function formatDuration(ms: number): string {
  const unit = (["ms", "µs", "ns"] as const).find((small) => ms >= unitMs[small])
  if (ms < 1_000) return unit === undefined ? "0s" : `${inUnit(ms, unitMs[unit])}${unit}`
  const hours = Math.floor(ms / unitMs.h)
  const minutes = Math.floor((ms % unitMs.h) / unitMs.m)
  const seconds = `${inUnit(ms % unitMs.m, unitMs.s)}s`
  if (hours > 0) return `${hours}h${minutes}m${seconds}`
  return minutes > 0 ? `${minutes}m${seconds}` : seconds
}

/** To the nanosecond, which is as fine as a duration is. */
function inUnit(ms: number, unit: number): number {
  return Number((ms / unit).toFixed(Math.round(Math.log10(unit / unitMs.ns))))
}
