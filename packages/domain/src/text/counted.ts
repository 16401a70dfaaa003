/** Writes a number with its noun: `1 snapshot`, `2 snapshots`. `plural` is for irregular nouns. */
export function counted(count: number, singular: string, plural = `${singular}s`): string {
  return `${count} ${count === 1 ? singular : plural}`
}
