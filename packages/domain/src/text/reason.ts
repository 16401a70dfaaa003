/** Of a reason that a resource shows, in UTF-16 units: with it every event has a largest size. */
export const reasonLengthMax = 2_000

/** What went wrong, cut where it is longer than anybody reads: a program's output may be in it. */
export function shownReason(text: string): string {
  // Half a pair is no text: a database refuses it.
  return text.length <= reasonLengthMax ? text : `${text.slice(0, reasonLengthMax - 1).toWellFormed()}…`
}
