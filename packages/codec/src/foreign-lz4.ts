import { StillframeError } from "@stillframe/domain/errors"
import type { FileReader } from "./file-reader.ts"
import { liblz4FrameStream } from "./lz4-codec.ts"
import { corrupted } from "./seek-table.ts"

/** Input that is given to the library at once. */
const inputBytes = 256 * 1024
/** A block has at most 4 MiB; less room for it only means more calls. */
const outputBytes = 1024 * 1024

/**
 * The content of any LZ4 frames, in pieces that are valid until the next. Throws `corrupted`, and `not_supported`
 * without liblz4.
 */
export async function* lz4Content(reader: FileReader): AsyncGenerator<Buffer, void, undefined> {
  using stream = liblz4FrameStream()
  if (!stream) throw needsLibrary()
  const output = Buffer.allocUnsafeSlow(outputBytes)
  let betweenFrames = true
  for (let input: Buffer; (input = await reader.some(inputBytes)).length > 0;) {
    // Full output means that there may be more of it, whether or not input is left.
    for (let full = false; input.length > 0 || full;) {
      const { consumed, produced, frameEnded } = decode(() => stream.decode(input, output))
      if (produced > 0) yield output.subarray(0, produced)
      input = input.subarray(consumed)
      full = produced === output.length && !frameEnded
      betweenFrames = frameEnded
    }
  }
  if (!betweenFrames) throw corrupted("it ends within a frame")
}

function decode<Result>(call: () => Result): Result {
  try {
    return call()
  } catch (thrown) {
    throw corrupted(`a frame does not decompress (${(thrown as Error).message})`, { cause: thrown })
  }
}

function needsLibrary(): StillframeError {
  return new StillframeError(
    "not_supported",
    "LZ4 files without a seek table are read by liblz4.so.1, which this machine does not have; " +
      "install it (Debian, Ubuntu: apt-get install liblz4-1) or decompress the file with the lz4 command",
  )
}
