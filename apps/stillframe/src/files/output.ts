import type { Stats } from "node:fs"
import { lstat, mkdir, realpath, rm, rmdir, stat, writeFile } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { draftIn } from "./draft-names.ts"

export interface OutputOptions {
  readonly output: string
  /** Replace an existing output. */
  readonly force?: boolean
}

export type Output =
  /** A file to make. `path` is the one that a link leads to. */
  | { readonly kind: "file"; readonly path: string; readonly replaces: boolean }
  /** Open already, such as standard output. Bytes go to where it stands. */
  | { readonly kind: "descriptor"; readonly fd: number }
  /** A pipe or a character device: bytes go into it, in order, and nothing of it is lost. */
  | { readonly kind: "pipe"; readonly path: string }
  | { readonly kind: "block device"; readonly path: string }

/**
 * Finds out how an output is written, before any work is done for it. `input` is the source, which is never
 * overwritten. Throws for outputs that can't be made or that only `--force` gives up.
 */
export async function resolveOutput(
  { output, force = false }: OutputOptions,
  input: Stats | undefined,
): Promise<Output> {
  const fd = descriptorOf(output)
  if (fd !== undefined) return { kind: "descriptor", fd }
  const found = await existing(output)
  if (found === undefined) {
    await assertCanBeMade(output)
    return { kind: "file", path: output, replaces: false }
  }
  if (input !== undefined && found.dev === input.dev && found.ino === input.ino)
    throw refusal(`${output} is the source itself; name another file`)
  if (found.isFIFO() || found.isCharacterDevice()) return { kind: "pipe", path: output }
  if (found.isDirectory()) throw refusal(`${output} is a directory; name a file in it`)
  if (found.isSocket()) throw refusal(`${output} is a socket; name a file`)
  if (found.isBlockDevice()) {
    if (!force) throw taken(`${output} is a block device, whose content would be lost`)
    return { kind: "block device", path: output }
  }
  if (!force) throw taken(`${output} exists already`)
  return { kind: "file", path: await realpath(output), replaces: true }
}

/** The descriptor that a shell's redirection or process substitution has opened. */
function descriptorOf(output: string): number | undefined {
  if (output === "-" || output === "/dev/stdout") return 1
  if (output === "/dev/stderr") return 2
  const [, number] = /^\/(?:dev|proc\/self)\/fd\/(\d{1,4})$/.exec(output) ?? []
  return number === undefined ? undefined : Number(number)
}

async function existing(output: string): Promise<Stats | undefined> {
  const found = await unlessAbsent(stat(output))
  if (found !== undefined || (await unlessAbsent(lstat(output))) === undefined) return found
  throw refusal(`${output} is a symbolic link to a file that does not exist; name that file itself`)
}

/**
 * Not every file system takes every name, and this must not be learnt when the work is done. Tried in a
 * directory of its own, so that a watcher sees a file of that name only when it is whole.
 */
async function assertCanBeMade(output: string): Promise<void> {
  if (output === "" || output.endsWith("/") || basename(output) === "..")
    throw refusal(`"${output}" does not name a file; name one with -o`)
  const dir = dirname(output)
  const place = await draftIn(dir)
  await mkdir(place, { mode: 0o700 }).catch((cause: unknown) => {
    const code = isAbsent(cause) ? "not_found" : "storage_failed"
    const [why] = (cause as Error).message.split(",")
    throw new StillframeError(code, `cannot make a file in ${dir}: ${why}; name another with -o`, { cause })
  })
  const inside = join(place, basename(output))
  try {
    await writeFile(inside, "", { flag: "wx" }).catch((cause: Error) => {
      const message = `cannot make ${output}: ${cause.message.split(",")[0]}; name another file`
      throw new StillframeError("storage_failed", message, { cause })
    })
  } finally {
    await rm(inside, { force: true })
    await rmdir(place)
  }
}

async function unlessAbsent<Result>(asked: Promise<Result>): Promise<Result | undefined> {
  try {
    return await asked
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

export function isAbsent(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT"
}

function taken(why: string): StillframeError {
  return new StillframeError("conflict", `${why}; name another file, or give --force`)
}

function refusal(message: string): StillframeError {
  return new StillframeError("invalid_request", message)
}
