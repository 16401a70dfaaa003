import { createId as cuid2 } from "@paralleldrive/cuid2"

/** A new cuid2: 24 lower-case alphanumerics, the first a letter. Used for every id and every fencing token. */
export function createId(): string {
  return cuid2()
}

/** What a path parameter must look like before it may be compared with an id. */
export const idPattern = /^[a-z][a-z0-9]{23}$/
