import { setImmediate as nextTurn } from "node:timers/promises"
import { stringify } from "yaml"

const options = { aliasDuplicateObjects: false }
/** A member of `paths` or of `components.schemas` is a piece. */
const depthMax = 3

type Members = Readonly<Record<string, unknown>>

/**
 * A large document as YAML, a piece a turn: all at once would hold the event loop for as long as a hundred
 * requests.
 */
export async function writeYaml(document: Members): Promise<string> {
  const written: string[] = []
  for (const keys of pathsOf(document, [])) {
    written.push(pieceAt(document, keys))
    await nextTurn()
  }
  return written.join("")
}

/** The names that lead to each piece. One that others follow stands for its own line alone. */
function* pathsOf(value: unknown, keys: readonly string[]): Generator<readonly string[]> {
  if (keys.length > 0) yield keys
  if (!isSplit(value, keys.length)) return
  for (const [key, member] of Object.entries(value)) yield* pathsOf(member, [...keys, key])
}

/** The lines of a piece as they stand in the whole: indented, below the lines of what holds it. */
function pieceAt(document: Members, keys: readonly string[]): string {
  const value = keys.reduce<unknown>((holder, key) => (holder as Members)[key], document)
  // Its line is that of a member which is no empty record.
  const own = isSplit(value, keys.length) ? { "": 0 } : value
  const nested = keys.reduceRight<unknown>((inner, key) => ({ [key]: inner }), own)
  const lines = stringify(nested, options).split("\n")
  const above = keys.length - 1
  return isSplit(value, keys.length) ? `${lines[above]}\n` : lines.slice(above).join("\n")
}

function isSplit(value: unknown, depth: number): value is Members {
  if (depth >= depthMax || typeof value !== "object" || value === null || Array.isArray(value)) return false
  return Object.keys(value).length > 0
}
