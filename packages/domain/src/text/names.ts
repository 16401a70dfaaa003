/** Names of instances and snapshots: the contract's rule. */
export const namePattern = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/
export const nameLengthMax = 63

/** Host and pool names become queue names, so they may hold nothing that a queue's key could misread. */
export const hostNamePattern = /^[a-z0-9-]{1,63}$/

/** A machine's own name made into a valid host name: lower case, other characters as dashes. */
export function toHostName(machineName: string): string {
  const name = machineName
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, "-")
    .slice(0, 63)
  return name === "" ? "localhost" : name
}
