import { createReadStream, type Stats } from "node:fs"
import { realpath, stat } from "node:fs/promises"
import type { Readable } from "node:stream"
import type { CompressedSource } from "@stillframe/codec/foreign/source"
import { StillframeError } from "@stillframe/domain/errors"
import { isAbsent } from "./output.ts"
import { unlessAborted } from "./run-verb.ts"
import { assertOpen } from "./standard-stream.ts"

export interface Input<Source> {
  readonly source: Source
  /** Undefined for a pipe, which is no file that an output could replace. */
  readonly stat: Stats | undefined
}

/** A regular file to compress. Throws for anything else, whose size is not known before it was read. */
export async function regularInput(path: string): Promise<Input<string> & { readonly stat: Stats }> {
  if (path === "-") throw notRegular("standard input")
  const found = await statInput(path)
  if (!found.isFile()) throw notRegular(path)
  return { source: await realpath(path), stat: found }
}

/** A compressed file, a pipe, or `-` for standard input. Throws for anything else. */
export async function compressedInput(path: string, signal: AbortSignal): Promise<Input<CompressedSource>> {
  if (path === "-") {
    assertOpen(0)
    if (process.stdin.isTTY) throw invalid("standard input is a terminal; name a file, or redirect one")
    return { source: piecesOf(() => process.stdin, signal), stat: undefined }
  }
  const found = await statInput(path)
  if (found.isFile()) return { source: await realpath(path), stat: found }
  if (found.isFIFO() || found.isCharacterDevice())
    return { source: piecesOf(() => createReadStream(path), signal), stat: undefined }
  throw invalid(`${path} is ${kindOf(found)}; name a file, or a pipe`)
}

/** Opens a pipe only when it is read: that waits for its other end. */
async function* piecesOf(open: () => Readable, signal: AbortSignal): AsyncGenerator<Buffer> {
  const stream = open()
  const pieces = (stream as AsyncIterable<Buffer>)[Symbol.asyncIterator]()
  try {
    for (;;) {
      const { done, value } = await unlessAborted(pieces.next(), signal)
      if (done === true) return
      yield value
    }
  } finally {
    stream.destroy()
  }
}

async function statInput(path: string): Promise<Stats> {
  const found = await stat(path).catch((error: unknown) => {
    if (!isAbsent(error)) throw error
  })
  if (found === undefined) throw new StillframeError("not_found", `there is no file ${path}; check the path`)
  if (found.isDirectory()) throw invalid(`${path} is a directory; name a file in it`)
  return found
}

function notRegular(path: string): StillframeError {
  return invalid(
    `${path} is not a regular file, so its size is not known before it was read; ` +
      "write it to a file first, or compress it with the zstd command",
  )
}

/** For a message. */
function kindOf(found: Stats): string {
  if (found.isDirectory()) return "a directory"
  if (found.isBlockDevice()) return "a block device"
  if (found.isCharacterDevice()) return "a character device"
  if (found.isSocket()) return "a socket"
  return found.isFIFO() ? "a pipe" : "a file"
}

function invalid(message: string): StillframeError {
  return new StillframeError("invalid_request", message)
}
