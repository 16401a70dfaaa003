import { constants } from "node:fs"
import { open } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"

/** The used members of a qcow2 header: QEMU's docs/interop/qcow2.txt, versions 2 and 3. */
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
const INCOMPATIBLE_COMPRESSION = 1n << 3n
const INCOMPATIBLE_EXTENDED_L2 = 1n << 4n
/** With dirty refcounts and extended L2 entries: all that QEMU knows. */
const INCOMPATIBLE_KNOWN = 0b1_1111n
const CLUSTER_BITS = { min: 9, max: 21 }
const L1_BYTES_MAX = 32 * 1024 * 1024
const REFCOUNT_TABLE_BYTES_MAX = 8 * 1024 * 1024
const REFCOUNT_ORDER_MAX = 6
const HEADER_BYTES_V3_MIN = 104
/** Zlib and zstd. */
const COMPRESSION_TYPE_MAX = 1

/**
 * Reads a qcow2 header without QEMU. Throws `invalid_request` for anything that would make QEMU open a file
 * that we did not look at (external data file), that needs a key, that is not a qcow2, or that QEMU would
 * refuse. `name` is for messages.
 */
export async function readQcow2Header(path: string, name = path): Promise<Qcow2Header> {
  // A pipe in its place would be waited for without end.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const bytes = Buffer.alloc(HEADER_BYTES_MAX)
    const { bytesRead } = await file.read(bytes, 0, HEADER_BYTES_MAX, 0)
    const { size } = await file.stat()
    return parseQcow2Header(bytes.subarray(0, bytesRead), name, size)
  } finally {
    await file.close()
  }
}

/** The pure part of `readQcow2Header`; `name` is for messages only, `fileSize` is in bytes. */
export function parseQcow2Header(bytes: Buffer, name: string, fileSize: number = bytes.length): Qcow2Header {
  const refuse = (why: string): StillframeError =>
    new StillframeError(
      "invalid_request",
      `${JSON.stringify(name)} is refused: ${why}; convert it with qemu-img convert -O qcow2`,
    )
  if (bytes.length < 72 || bytes.readUInt32BE(0) !== MAGIC) throw refuse("it is not a qcow2 image")
  const version = bytes.readUInt32BE(4)
  if (version !== 2 && version !== 3) throw refuse(`qcow2 version ${version} is unknown`)
  if (version === 3 && bytes.length < HEADER_BYTES_V3_MIN) throw refuse("its header is cut off")
  if (bytes.readUInt32BE(32) !== 0) throw refuse("it is encrypted")
  const incompatible = version === 3 ? bytes.readBigUInt64BE(72) : 0n
  if ((incompatible & INCOMPATIBLE_DATA_FILE) !== 0n) throw refuse("it keeps its data in another file")
  if ((incompatible & INCOMPATIBLE_CORRUPT) !== 0n) throw refuse("it is marked corrupt")
  if ((incompatible & ~INCOMPATIBLE_KNOWN) !== 0n) throw refuse("it needs features that QEMU does not know")
  const fault = layoutFault(bytes, { version, incompatible, fileSize })
  if (fault !== undefined) throw refuse(fault)

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

/** Why QEMU would refuse the tables that a header describes (`qcow2_do_open`), or find the file cut off. */
function layoutFault(
  bytes: Buffer,
  { version, incompatible, fileSize }: { version: number; incompatible: bigint; fileSize: number },
): string | undefined {
  const clusterBits = bytes.readUInt32BE(20)
  if (clusterBits < CLUSTER_BITS.min || clusterBits > CLUSTER_BITS.max)
    return `its clusters have 2^${clusterBits} bytes, not 2^${CLUSTER_BITS.min} to 2^${CLUSTER_BITS.max}`
  const cluster = 2 ** clusterBits
  const table = { at: Number(bytes.readBigUInt64BE(40)), entries: bytes.readUInt32BE(36) }
  // An entry of the L1 table stands for a cluster of entries of 8 or 16 bytes, each of which stands for a
  // cluster.
  const entryBytes = (incompatible & INCOMPATIBLE_EXTENDED_L2) === 0n ? 8 : 16
  const needed = Math.ceil(Number(bytes.readBigUInt64BE(24)) / ((cluster / entryBytes) * cluster))
  if (table.entries * 8 > L1_BYTES_MAX || needed * 8 > L1_BYTES_MAX) return "its L1 table is too large"
  if (table.entries < needed) return "its L1 table is too small for its size"
  if (table.at % cluster !== 0) return "its L1 table is not where a cluster begins"
  const refcounts = { at: Number(bytes.readBigUInt64BE(48)), clusters: bytes.readUInt32BE(56) }
  if (refcounts.clusters === 0 || refcounts.clusters * cluster > REFCOUNT_TABLE_BYTES_MAX)
    return "the size of its reference count table is out of bounds"
  if (refcounts.at % cluster !== 0) return "its reference count table is not where a cluster begins"
  if (table.at + table.entries * 8 > fileSize || refcounts.at > fileSize) return "the file is cut off"
  return version === 3 ? versionThreeFault(bytes, { cluster, incompatible }) : undefined
}

function versionThreeFault(
  bytes: Buffer,
  { cluster, incompatible }: { cluster: number; incompatible: bigint },
): string | undefined {
  const headerBytes = bytes.readUInt32BE(100)
  if (headerBytes < HEADER_BYTES_V3_MIN || headerBytes > cluster)
    return "the length of its header is out of bounds"
  if (bytes.readUInt32BE(96) > REFCOUNT_ORDER_MAX) return "its reference counts are wider than 64 bits"
  const compression = headerBytes > HEADER_BYTES_V3_MIN ? (bytes[HEADER_BYTES_V3_MIN] ?? 0) : 0
  if (compression > COMPRESSION_TYPE_MAX) return `its compression type ${compression} is unknown`
  if ((compression !== 0) !== ((incompatible & INCOMPATIBLE_COMPRESSION) !== 0n))
    return "its compression type contradicts its features"
  return undefined
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
