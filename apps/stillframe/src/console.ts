import { readFile, watch } from "node:fs/promises"
import { dirname } from "node:path"

/** One line that the demo guest prints: how far it has counted, the checksum of its random file, its boot. */
export interface Count {
  readonly count: number
  readonly checksum: string
  readonly bootId: string
}

/** The whole count lines in a serial log; the last line may still be being written. */
export async function counts(serialLog: string): Promise<Count[]> {
  const lines = (await readFile(serialLog, "latin1")).split("\n").slice(0, -1)
  return lines.flatMap((line) => {
    const match = /^COUNT (\d+) (\S+) (\S+)\s*$/.exec(line)
    return match === null
      ? []
      : [{ count: Number(match[1]), checksum: match[2] ?? "", bootId: match[3] ?? "" }]
  })
}

/** Waits until the log has count lines that satisfy `enough`. Rejects when `signal` is aborted. */
export async function waitForCounts(
  serialLog: string,
  enough: (found: readonly Count[]) => boolean,
  signal: AbortSignal,
): Promise<Count[]> {
  const changes = watch(dirname(serialLog), { signal })
  // Looked at once before the first change, or a log that is complete already would be waited for.
  let found = await counts(serialLog)
  if (enough(found)) return found
  for await (const _change of changes) {
    found = await counts(serialLog)
    if (enough(found)) return found
  }
  return found
}
