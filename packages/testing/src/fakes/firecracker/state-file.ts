import { readFileSync } from "node:fs"

export interface Machine {
  vcpu_count: number
  mem_size_mib: number
}

/** What the fake keeps in its state file, between a header and the checksum that the real one has. */
export interface SavedState {
  /** Which 1.x made it, and alone can load it. */
  minor: number
  machine: Machine
  bootSource: Record<string, unknown>
  drives: Record<string, unknown>[]
}

/** Of 1.<minor>. */
const formats: Readonly<Record<number, string>> = { 12: "6.0.0", 13: "8.0.0", 14: "8.0.0", 15: "9.0.0" }
const unreadable: Readonly<Record<number, string>> = {
  12: "An error occured with serialization/deserialization: LimitExceeded",
  13: "An error occured with serialization/deserialization: LimitExceeded",
  14: "An error occured during bincode decoding: LimitExceeded",
  15: "An error occured during bitcode serialization: bitcode error",
}
const tooShort: Readonly<Record<number, string>> = {
  12: "Snapshot file is smaller than CRC length.",
  13: "Snapshot file is smaller than CRC length.",
  14: "An error occured during bincode decoding: UnexpectedEnd { additional: 4 }",
}
const checksumBytes = 8
const polynomial = 0x95ac_9329_ac4b_c9b5n

export const formatOf = (minor: number): string => formats[minor] ?? "10.0.0"

export function encodeState(state: SavedState): Buffer {
  const text = Buffer.from(JSON.stringify(state))
  const checksum = Buffer.alloc(8)
  checksum.writeBigUInt64LE(crc64(text))
  return Buffer.concat([text, checksum])
}

/** Throws with Firecracker's words. */
export function decodeState(path: string, minor: number): SavedState {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch {
    throw new Error("Failed to open snapshot file: No such file or directory (os error 2)")
  }
  try {
    return decode(bytes, minor)
  } catch (error) {
    throw new Error(`Failed to load snapshot state from file: ${(error as Error).message}`, { cause: error })
  }
}

/** Since 1.14 the checksum is looked at last. */
function decode(bytes: Buffer, minor: number): SavedState {
  if (bytes.length < checksumBytes)
    throw new Error(tooShort[minor] ?? "IO Error: File too short to contain CRC")
  const crc = crc64(bytes)
  if (crc !== 0n && minor < 14) throw new Error(`CRC64 validation failed: ${crc}`)
  const state = parsed(bytes, minor)
  if (crc !== 0n) throw new Error("CRC64 validation failed")
  return state
}

/**
 * Firecracker seldom comes to read the version of another one's state: it fails before, also where both have
 * the same format.
 */
function parsed(bytes: Buffer, minor: number): SavedState {
  let made: number | undefined
  try {
    const state = JSON.parse(bytes.subarray(0, -checksumBytes).toString()) as SavedState
    if (state.minor === minor) return state
    made = state.minor
  } catch {
    // Nor is there a difference between that and no state at all.
  }
  if (made === 12 && (minor === 13 || minor === 14))
    throw new Error(`Invalid data version: ${formatOf(made)}`)
  throw new Error(unreadable[minor] ?? "An error occurred during bitcode serialization: bitcode error")
}

/** CRC-64 of Jones, bit by bit. */
function crc64(bytes: Uint8Array): bigint {
  let crc = 0n
  for (const byte of bytes) {
    crc ^= BigInt(byte)
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ polynomial : crc >> 1n
  }
  return crc
}
