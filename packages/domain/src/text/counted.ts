/** A number with what it counts: `1 snapshot`, `2 snapshots`. `plural` for a noun that does not just get an s. */
export function counted(count: number, singular: string, plural = `${singular}s`): string {
  return `${count} ${count === 1 ? singular : plural}`
}
