import { once } from "node:events"
import { link, rename, rm, stat } from "node:fs/promises"
import { availableParallelism } from "node:os"
import { dirname } from "node:path"
import { anyContent } from "@stillframe/codec/any-content"
import { decompressAny, verifyAny } from "@stillframe/codec/any-file"
import { compressFile, type OnProgress } from "@stillframe/codec/compress"
import { algorithms, defaultLevel, type Algorithm } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { syncDir } from "@stillframe/storage/durable"
import { progressBar } from "./progress-bar.ts"

// The verbs for files outside the service: files in, files and an exit status out.

export interface OutputOptions {
  readonly output: string
  /** Whether an existing output is replaced. */
  readonly force?: boolean
}

export interface CompressOptions extends OutputOptions {
  readonly algorithm: string
  readonly level?: string
}

const threads = availableParallelism()

export function compress(source: string, options: CompressOptions): Promise<void> {
  return run(async (work) => {
    const settings = compression(options)
    const make = (destination: string): Promise<{ uncompressedBytes: number; compressedBytes: number }> =>
      compressFile({ source, destination, ...settings, threads, ...work })
    const { uncompressedBytes, compressedBytes } = await writeWhole(options, make)
    return `${options.output}: ${uncompressedBytes} bytes in ${compressedBytes}`
  })
}

export function decompress(source: string, options: OutputOptions): Promise<void> {
  return run(async (work) => {
    const make = (destination: string): Promise<{ uncompressedBytes: number }> =>
      decompressAny({ source, destination, threads, ...work })
    const { uncompressedBytes } = await writeWhole(options, make)
    return `${options.output}: ${uncompressedBytes} bytes`
  })
}

export function verify(path: string): Promise<void> {
  return run(async (work) => {
    const { algorithm, sha256, uncompressedBytes, endsInTable } = await verifyAny(path, { threads, ...work })
    const what = algorithm === undefined ? "good, without content," : `good ${algorithm},`
    const limit = endsInTable ? "" : "; no seek table tells whether frames are missing at its end"
    return `${path}: ${what} ${uncompressedBytes} bytes with the SHA-256 ${sha256}${limit}`
  })
}

/** Writes the content, or `length` bytes of it from `offset` on, to standard output. */
export function cat(path: string, range: { offset?: string; length?: string }): Promise<void> {
  return run(async ({ signal }) => {
    const offset = wholeNumber("--offset", range.offset)
    const length = wholeNumber("--length", range.length)
    // Whoever reads has seen enough.
    const left = new AbortController()
    process.stdout.on("error", (error) => left.abort(error))
    const either = AbortSignal.any([signal, left.signal])
    try {
      for await (const piece of anyContent(path, { offset, length, threads, signal: either }))
        if (!process.stdout.write(piece)) await once(process.stdout, "drain", { signal: either })
    } catch (error) {
      if ((left.signal.reason as NodeJS.ErrnoException | undefined)?.code !== "EPIPE") throw error
    }
    return undefined
  })
}

interface Work {
  readonly signal: AbortSignal
  readonly onProgress: OnProgress
}

/** Runs a verb until it ends or Ctrl-C ends it; prints what it says, or why it failed with exit status 1. */
async function run(verb: (work: Work) => Promise<string | undefined>): Promise<void> {
  const interrupted = new AbortController()
  process.once("SIGINT", () => interrupted.abort())
  const bar = progressBar(process.stderr)
  try {
    const said = await verb({ signal: interrupted.signal, onProgress: bar.onProgress })
    bar.end()
    if (said !== undefined) console.log(said)
  } catch (error) {
    bar.end()
    if (interrupted.signal.aborted) process.exitCode = 130
    else if (error instanceof StillframeError || (error as NodeJS.ErrnoException).syscall !== undefined) {
      console.error((error as Error).message)
      process.exitCode = 1
    } else throw error
  }
}

/** Makes the output beside its place, so that under its name there is all of it, what was there before, or nothing. */
async function writeWhole<Result>(
  { output, force = false }: OutputOptions,
  make: (destination: string) => Promise<Result>,
): Promise<Result> {
  if (!force && (await exists(output))) throw taken(output)
  const beside = `${output}.${process.pid}.partial`
  const result = await make(beside)
  try {
    if (force) await rename(beside, output)
    else await link(beside, output)
    // Whoever removes the source next must not lose both to a power cut.
    await syncDir(dirname(output))
  } catch (cause) {
    throw (cause as NodeJS.ErrnoException).code === "EEXIST" ? taken(output) : cause
  } finally {
    await rm(beside, { force: true })
  }
  return result
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return false
      throw error
    },
  )
}

function taken(path: string): StillframeError {
  return new StillframeError("conflict", `${path} exists already; name another file, or give --force`)
}

function compression({ algorithm, level }: CompressOptions): { algorithm: Algorithm; level: number } {
  const known = algorithms.find((name) => name === algorithm)
  if (known === undefined)
    throw new StillframeError(
      "invalid_request",
      `there is no algorithm "${algorithm}"; use ${algorithms.join(" or ")}`,
    )
  return { algorithm: known, level: wholeNumber("--level", level) ?? defaultLevel(known) }
}

function wholeNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw new StillframeError("invalid_request", `${option} ${text} must be a whole number from 0 on`)
}
