/**
 * One line of a comparison: both sides' medians, and the ratio of the medians with that of the single rounds
 * beside it.
 */
export interface Comparison {
  readonly what: string
  readonly ours: readonly number[]
  readonly theirs: readonly number[]
  readonly target: string
  /** More columns, by their titles. */
  readonly besides?: Readonly<Record<string, string>>
}

/** The middle value; of an even number of values the upper of the two. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

/** `12–34`, in whole milliseconds. */
export function range(values: readonly number[]): string {
  return `${Math.round(Math.min(...values))}–${Math.round(Math.max(...values))}`
}

/**
 * Ours and theirs by turns, each first in every other round, so that whatever else the machine does falls on
 * both.
 */
export async function byTurns<Ours, Theirs>(
  rounds: number,
  ours: (round: number) => Promise<Ours>,
  theirs: (round: number) => Promise<Theirs>,
): Promise<{ ours: Ours[]; theirs: Theirs[] }> {
  const all: { ours: Ours[]; theirs: Theirs[] } = { ours: [], theirs: [] }
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 0) all.ours.push(await ours(round))
    all.theirs.push(await theirs(round))
    if (round % 2 === 1) all.ours.push(await ours(round))
  }
  return all
}

export function printComparisons(comparisons: readonly Comparison[]): void {
  const rows = comparisons.map(({ what, ours, theirs, target, besides }) => {
    const ratios = ours.map((value, round) => value / (theirs[round] ?? Number.NaN))
    return [
      what,
      {
        rounds: ours.length,
        ours: Math.round(median(ours)),
        theirs: Math.round(median(theirs)),
        ratio: twoPlaces(median(ours) / median(theirs)),
        "min–max": `${twoPlaces(Math.min(...ratios))}–${twoPlaces(Math.max(...ratios))}`,
        target,
        ...besides,
      },
    ]
  })
  console.table(Object.fromEntries(rows))
}

/** Values without a reference, such as the parts of a whole. */
export function printTimes(times: readonly { what: string; ms: readonly number[]; target?: string }[]): void {
  const rows = times.map(({ what, ms, target }) => [
    what,
    {
      rounds: ms.length,
      "median ms": Math.round(median(ms)),
      "min–max": range(ms),
      ...(target !== undefined && { target }),
    },
  ])
  console.table(Object.fromEntries(rows))
}

function twoPlaces(value: number): number {
  return Math.round(value * 100) / 100
}

/**
 * Now, in milliseconds since 1970 with fractions: comparable with other processes' clocks on this machine.
 */
export function wallClock(): number {
  return performance.timeOrigin + performance.now()
}
