/** Limits a reason in a resource, in UTF-16 units, so that the size of events is bounded. */
export const reasonLengthMax = 2_000

/** Shortens a reason, which may contain the output of a program. */
export function shownReason(text: string): string {
  // Half a pair is no text: a database refuses it.
  return text.length <= reasonLengthMax ? text : `${text.slice(0, reasonLengthMax - 1).toWellFormed()}…`
}
