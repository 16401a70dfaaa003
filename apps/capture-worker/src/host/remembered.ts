import { readFile } from "node:fs/promises"
import { readBootId } from "@stillframe/hypervisors/process/processes"
import { writeDurably } from "@stillframe/storage/durable"

interface Remembered {
  readonly key: string
  readonly result: unknown
}

/**
 * The result of a trial, kept in `file` until the machine boots again or what the trial depends on is
 * another. `Result` is what JSON can hold.
 */
export async function remembered<Result>(
  file: string,
  dependsOn: readonly unknown[],
  findOut: () => Promise<Result>,
): Promise<Result> {
  const key = JSON.stringify([await readBootId(), ...dependsOn])
  const known = await read(file)
  if (known?.key === key) return known.result as Result
  const result = await findOut()
  await writeDurably(file, JSON.stringify({ key, result } satisfies Remembered))
  return result
}

/** Undefined too for what can't be read: then it is tried again. */
async function read(file: string): Promise<Remembered | undefined> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as Remembered
  } catch {
    return undefined
  }
}
