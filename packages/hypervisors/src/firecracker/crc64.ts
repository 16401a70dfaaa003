/**
 * CRC-64 of Jones, bits reflected, starting from zero: what Firecracker ends its state file with,
 * little-endian.
 */
const polynomial = 0x95ac_9329_ac4b_c9b5n

/**
 * For each byte the two halves of its remainder: whole 64-bit numbers are too slow in JavaScript for a file
 * of a megabyte.
 */
const [low, high] = remainders()

/** Zero over bytes that end in the checksum of those before. */
export function crc64(bytes: Uint8Array): bigint {
  let [crcLow, crcHigh] = [0, 0]
  for (const byte of bytes) {
    const at = (crcLow ^ byte) & 0xff
    crcLow = ((crcLow >>> 8) | (crcHigh << 24)) ^ (low[at] ?? 0)
    crcHigh = (crcHigh >>> 8) ^ (high[at] ?? 0)
  }
  return (BigInt(crcHigh >>> 0) << 32n) | BigInt(crcLow >>> 0)
}

function remainders(): [Uint32Array, Uint32Array] {
  const [lows, highs] = [new Uint32Array(256), new Uint32Array(256)]
  for (let byte = 0; byte < 256; byte++) {
    let remainder = BigInt(byte)
    for (let bit = 0; bit < 8; bit++)
      remainder = remainder & 1n ? (remainder >> 1n) ^ polynomial : remainder >> 1n
    lows[byte] = Number(remainder & 0xffff_ffffn)
    highs[byte] = Number(remainder >> 32n)
  }
  return [lows, highs]
}
