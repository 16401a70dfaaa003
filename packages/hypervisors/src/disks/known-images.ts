import { randomUUID } from "node:crypto"
import type { BigIntStats } from "node:fs"
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { storedNames, type ImageStore } from "./image-store.ts"

/** Times are kept in steps of some milliseconds; a change within one step of the last shows no other time. */
const settledMs = 2_000
/** The name's end while a file is being written. */
const draftEnd = ".draft"

interface Known {
  readonly state: string
  readonly sha256: string
}

/**
 * The SHA-256 that a caller's file had, if it is unchanged since. Its change time proves that: the kernel
 * sets it with every write, and no user can set it back.
 */
export async function knownSha256({ knownDir }: ImageStore, facts: BigIntStats): Promise<string | undefined> {
  try {
    const known = JSON.parse(await readFile(join(knownDir, nameOf(facts)), "utf8")) as Known
    return known.state === stateOf(facts) ? known.sha256 : undefined
  } catch (error) {
    // A file that a crash cut off means the same as none.
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw error
  }
}

/**
 * Remembers what a caller's file held when it was as `facts` say. A file that was changed just now is not
 * remembered.
 */
export async function rememberSha256(
  { knownDir }: ImageStore,
  facts: BigIntStats,
  sha256: string,
): Promise<void> {
  if (Date.now() - Number(facts.ctimeMs) < settledMs) return
  await mkdir(knownDir, { recursive: true, mode: 0o700 })
  const draft = join(knownDir, `${randomUUID()}${draftEnd}`)
  const known: Known = { state: stateOf(facts), sha256 }
  await writeFile(draft, JSON.stringify(known), { mode: 0o600 })
  await rename(draft, join(knownDir, nameOf(facts)))
}

/** Forgets the files whose images no store has any more. */
export async function forgetUnused(
  { knownDir }: Pick<ImageStore, "knownDir">,
  stored: ReadonlySet<string>,
): Promise<void> {
  for (const name of await storedNames(knownDir)) {
    if (name.endsWith(draftEnd)) continue
    const text = await readFile(join(knownDir, name), "utf8").catch(() => "")
    const sha256 = /"sha256":"([0-9a-f]{64})"/.exec(text)?.[1]
    if (sha256 === undefined || !stored.has(sha256)) await rm(join(knownDir, name), { force: true })
  }
}

const nameOf = ({ dev, ino }: BigIntStats): string => `${dev}-${ino}`

/** All that changes with a file's content. */
export function stateOf({ size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${size} ${mtimeNs} ${ctimeNs}`
}
