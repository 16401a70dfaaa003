const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"] as const

/** A size for people, in the largest binary unit of which it has one: `1.5 GiB`. */
export function shownBytes(bytes: number): string {
  const last = units.length - 1
  let unit = Math.min(last, Math.floor(Math.log2(Math.max(1, bytes)) / 10))
  // A little less than 1 TiB would be rounded to 1024 GiB.
  if (unit < last && rounded(bytes, unit) >= 1024) unit += 1
  return `${rounded(bytes, unit)} ${units[unit]}`
}

const rounded = (bytes: number, unit: number): number => Number((bytes / 1024 ** unit).toFixed(1))
