import { customAlphabet } from "nanoid"

const letters = "abcdefghijklmnopqrstuvwxyz"
const firstCharacter = customAlphabet(letters, 1)
const otherCharacters = customAlphabet(`0123456789${letters}`, 23)

/**
 * A new id in the form of a cuid2: 24 lower-case alphanumerics, the first a letter. Used for every id and
 * every fencing token.
 */
export function createId(): string {
  return firstCharacter() + otherCharacters()
}

/** A path parameter must match before it is compared with an id. */
export const idPattern = /^[a-z][a-z0-9]{23}$/
