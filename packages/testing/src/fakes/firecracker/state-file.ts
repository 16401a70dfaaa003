import { readFileSync } from "node:fs"

/** What the fake keeps in its state file, between a header and the checksum that the real one has. */
export interface SavedState {
  /** The format's version, of which a binary loads only its own major. */
  format: string
  machine: { vcpu_count: number; mem_size_mib: number }
  drives: Record<string, unknown>[]
}

/** Of 1.<minor>. */
const formats: Readonly<Record<number, string>> = { 12: "6.0.0", 13: "8.0.0", 14: "8.0.0", 15: "9.0.0" }
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
  const failed = "Failed to load snapshot state from file: "
  if (bytes.length < 8 || crc64(bytes) !== 0n) throw new Error(`${failed}CRC64 validation failed`)
  const state = JSON.parse(bytes.subarray(0, -8).toString()) as SavedState
  if (state.format.split(".")[0] !== formatOf(minor).split(".")[0])
    throw new Error(`${failed}Invalid data version: ${state.format}`)
  return state
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
