import { constants } from "node:fs"
import { open } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"

/** What we need of a qcow2 header: QEMU's docs/interop/qcow2.txt, versions 2 and 3. */
export interface Qcow2Header {
  virtualSize: number
  backingFile?: string
  backingFormat?: string
}

const MAGIC = 0x51_46_49_fb
const HEADER_BYTES_MAX = 64 * 1024
const BACKING_NAME_BYTES_MAX = 1023
const EXTENSION_END = 0
const EXTENSION_BACKING_FORMAT = 0xe2_79_2a_ca
const EXTENSION_DATA_FILE = 0x44_41_54_41
const INCOMPATIBLE_CORRUPT = 1n << 1n
const INCOMPATIBLE_DATA_FILE = 1n << 2n

/**
 * Reads a qcow2 header without QEMU. Throws `invalid_request` for anything that would make QEMU open a file that we did not look at
 * (external data file), that needs a key, or that is no qcow2. `name` is for messages.
 */
export async function readQcow2Header(path: string, name = path): Promise<Qcow2Header> {
  // A pipe in its place would be waited for without end.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const bytes = Buffer.alloc(HEADER_BYTES_MAX)
    const { bytesRead } = await file.read(bytes, 0, HEADER_BYTES_MAX, 0)
    return parseQcow2Header(bytes.subarray(0, bytesRead), name)
  } finally {
    await file.close()
  }
}

/** The pure part of `readQcow2Header`; `name` is for messages only. */
export function parseQcow2Header(bytes: Buffer, name: string): Qcow2Header {
  const refuse = (why: string): StillframeError =>
    new StillframeError(
      "invalid_request",
      `${name} is refused: ${why}; convert it with qemu-img convert -O qcow2`,
    )
  if (bytes.length < 72 || bytes.readUInt32BE(0) !== MAGIC) throw refuse("it is not a qcow2 image")
  const version = bytes.readUInt32BE(4)
  if (version !== 2 && version !== 3) throw refuse(`qcow2 version ${version} is unknown`)
  if (version === 3 && bytes.length < 104) throw refuse("its header is cut off")
  if (bytes.readUInt32BE(32) !== 0) throw refuse("it is encrypted")
  const incompatible = version === 3 ? bytes.readBigUInt64BE(72) : 0n
  if ((incompatible & INCOMPATIBLE_DATA_FILE) !== 0n) throw refuse("it keeps its data in another file")
  if ((incompatible & INCOMPATIBLE_CORRUPT) !== 0n) throw refuse("it is marked corrupt")

  const backingOffset = Number(bytes.readBigUInt64BE(8))
  const backingLength = bytes.readUInt32BE(16)
  const extensions = readExtensions(
    bytes,
    version === 3 ? bytes.readUInt32BE(100) : 72,
    backingOffset,
    refuse,
  )
  if (extensions.has(EXTENSION_DATA_FILE)) throw refuse("it keeps its data in another file")
  const virtualSize = Number(bytes.readBigUInt64BE(24))
  if (backingOffset === 0) return { virtualSize }
  if (backingLength > BACKING_NAME_BYTES_MAX || backingOffset + backingLength > bytes.length) {
    throw refuse("the name of its backing file is out of bounds")
  }
  const backingFile = bytes.toString("utf8", backingOffset, backingOffset + backingLength)
  const backingFormat = extensions.get(EXTENSION_BACKING_FORMAT)?.toString("utf8")
  return { virtualSize, backingFile, ...(backingFormat !== undefined && { backingFormat }) }
}

function readExtensions(
  bytes: Buffer,
  start: number,
  backingOffset: number,
  refuse: (why: string) => StillframeError,
): Map<number, Buffer> {
  const found = new Map<number, Buffer>()
  const end = backingOffset === 0 ? bytes.length : Math.min(backingOffset, bytes.length)
  for (let at = start; at + 8 <= end;) {
    const type = bytes.readUInt32BE(at)
    const length = bytes.readUInt32BE(at + 4)
    if (type === EXTENSION_END) return found
    if (at + 8 + length > end) throw refuse("a header extension is out of bounds")
    found.set(type, bytes.subarray(at + 8, at + 8 + length))
    at += 8 + Math.ceil(length / 8) * 8
  }
  return found
}
