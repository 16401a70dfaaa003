import { constants } from "node:fs"
import { open } from "node:fs/promises"
import { availableParallelism } from "node:os"
import { isatty } from "node:tty"
import { compressFile, compressToPipe } from "@stillframe/codec/compress"
import { type CompressedSource, contentBytesByTable } from "@stillframe/codec/foreign/source"
import { anyContent } from "@stillframe/codec/frames/any-content"
import { decompressAny, verifyAny } from "@stillframe/codec/frames/any-file"
import { algorithms, defaultLevel, type Algorithm } from "@stillframe/domain/compression"
import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { printLine } from "../print-line.ts"
import { compressedInput, regularInput } from "./input.ts"
import { type Output, type OutputOptions, resolveOutput } from "./output.ts"
import { publishOutput } from "./publish-output.ts"
import { runVerb, unlessAborted, type Work } from "./run-verb.ts"
import { assertOpen } from "./standard-stream.ts"
import { openBlockDevice, writeInOrder } from "./write-in-order.ts"

// The verbs for files outside the service: files in, files and an exit status out.

export type { OutputOptions } from "./output.ts"

export interface CompressOptions extends OutputOptions {
  readonly algorithm: string
  readonly level?: string
}

const threads = availableParallelism()

/** A verb without its process: it does the work, and resolves with the line to print. */
type Verb<Options> = (path: string, options: Options, work: Work) => Promise<string | undefined>

export const compress = (path: string, options: CompressOptions): Promise<void> =>
  run(compressing, path, options)
export const decompress = (path: string, options: OutputOptions): Promise<void> =>
  run(decompressing, path, options)
export const verify = (path: string): Promise<void> => run(verifying, path, undefined)
/** Writes the content, or `length` bytes of it from `offset` on, to standard output. */
export const cat = (path: string, range: { offset?: string; length?: string }): Promise<void> =>
  run(writing, path, range)

function run<Options>(verb: Verb<Options>, path: string, options: Options): Promise<void> {
  return runVerb(async (work) => {
    const line = await verb(path, options, work)
    if (line !== undefined) await printLine(line)
  })
}

export const compressing: Verb<CompressOptions> = async (path, options, work) => {
  const settings = { ...compression(options), threads, ...work }
  const { source, stat } = await regularInput(path)
  const output = await resolveOutput(options, stat)
  if (output.kind === "block device")
    throw invalid(`${output.path} is a block device, whose end would not be that of the file; name a file`)
  const { uncompressedBytes, compressedBytes } =
    output.kind === "file"
      ? await publishOutput(output, (destination) =>
          compressFile({ source, destination, mode: stat.mode & 0o777, ...settings }),
        )
      : await withDescriptor(output, work.signal, (fd) => {
          if (isatty(fd)) throw invalid("the output is a terminal; name a file, or redirect it")
          const made = unlessAborted(compressToPipe({ source, fd, ...settings }), work.signal)
          return untilReaderLeft(made, { uncompressedBytes: 0, compressedBytes: 0 })
        })
  return lineFor(output, `${options.output}: ${counted(uncompressedBytes, "byte")} in ${compressedBytes}`)
}

export const decompressing: Verb<OutputOptions> = async (path, options, work) => {
  const { source, stat } = await compressedInput(path, work.signal)
  const output = await resolveOutput(options, stat)
  const mode = stat && stat.mode & 0o777
  const uncompressedBytes =
    output.kind === "file"
      ? await publishOutput(output, async (destination) => {
          const made = await decompressAny({ source, destination, mode, threads, ...work })
          return made.uncompressedBytes
        })
      : await decompressInto(output, source, work)
  return lineFor(output, `${options.output}: ${counted(uncompressedBytes, "byte")}`)
}

export const verifying: Verb<undefined> = async (path, _options, work) => {
  const { source } = await compressedInput(path, work.signal)
  const { algorithm, sha256, uncompressedBytes, endsInTable } = await verifyAny(source, { threads, ...work })
  const what = algorithm === undefined ? "good, without content," : `good ${algorithm},`
  const limit = endsInTable ? "" : "; no seek table tells whether frames are missing at its end"
  return `${path}: ${what} ${counted(uncompressedBytes, "byte")} with the SHA-256 ${sha256}${limit}`
}

const writing: Verb<{ offset?: string; length?: string }> = async (path, range, { signal }) => {
  const offset = wholeNumber("--offset", range.offset)
  const length = wholeNumber("--length", range.length)
  assertOpen(1)
  const { source } = await compressedInput(path, signal)
  await untilReaderLeft(writeInOrder(1, anyContent(source, { offset, length, threads, signal }), signal), 0)
  return undefined
}

async function decompressInto(
  output: Exclude<Output, { kind: "file" }>,
  source: CompressedSource,
  { signal }: Work,
): Promise<number> {
  const content = anyContent(source, { threads, signal })
  if (output.kind !== "block device")
    return withDescriptor(output, signal, (fd) => untilReaderLeft(writeInOrder(fd, content, signal), 0))
  await using device = await openBlockDevice(output.path, (await contentBytesByTable(source)) ?? 0)
  const bytes = await writeInOrder(device.fd, content, signal)
  await device.sync()
  return bytes
}

/** A reader that has seen enough closes its end of the pipe: nothing more is to be done. */
async function untilReaderLeft<Result>(writing: Promise<Result>, result: Result): Promise<Result> {
  return writing.catch((error: Error) => {
    for (const thrown of [error, error.cause])
      if ((thrown as NodeJS.ErrnoException | undefined)?.code === "EPIPE") return result
    throw error
  })
}

async function withDescriptor<Result>(
  output: Exclude<Output, { kind: "file" }>,
  signal: AbortSignal,
  use: (fd: number) => Promise<Result>,
): Promise<Result> {
  if (output.kind === "descriptor") {
    if (output.fd === 1) assertOpen(1)
    return use(output.fd)
  }
  await using opened = await unlessAborted(open(output.path, constants.O_WRONLY), signal)
  return await use(opened.fd)
}

/** Undefined for a pipe: standard output may be where the content goes. */
function lineFor(output: Output, line: string): string | undefined {
  return output.kind === "file" || output.kind === "block device" ? line : undefined
}

function compression({ algorithm, level }: CompressOptions): { algorithm: Algorithm; level: number } {
  const known = algorithms.find((name) => name === algorithm)
  if (known === undefined)
    throw invalid(`there is no algorithm "${algorithm}"; use ${algorithms.join(" or ")}`)
  return { algorithm: known, level: wholeNumber("--level", level) ?? defaultLevel(known) }
}

function wholeNumber(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw invalid(`${option} ${text} must be a whole number from 0 to 999999999999999`)
}

function invalid(message: string): StillframeError {
  return new StillframeError("invalid_request", message)
}
