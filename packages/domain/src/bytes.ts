const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"] as const

/** A size for people, in the largest binary unit of which it has one: `1.5 GiB`. */
export function shownBytes(bytes: number): string {
  const unit = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10))
  return `${Number((bytes / 1024 ** unit).toFixed(1))} ${units[unit]}`
}
