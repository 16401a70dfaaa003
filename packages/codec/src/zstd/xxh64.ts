/**
 * The running XXH64 (seed 0) of the bytes given to `update`; `low32` is its least significant half so far.
 */
export interface Xxh64 {
  update(bytes: Uint8Array): void
  low32(): number
}

const stripeBytes = 32
const prime1 = 0x9e3779b185ebca87n
const prime2 = 0xc2b2ae3d27d4eb4fn
const prime3 = 0x165667b19e3779f9n
const prime4 = 0x85ebca77c2b2ae63n
const prime5 = 0x27d4eb2f165667c5n

/**
 * Stripes are mixed in halves of 32 bits: BigInt is a hundred times slower, and only the end is short enough
 * for it.
 */
export function xxh64(): Xxh64 {
  const lanes = new Int32Array(8)
  ;[prime1 + prime2, prime2, 0n, -prime1].forEach((start, lane) => {
    lanes[2 * lane] = Number(BigInt.asIntN(32, start))
    lanes[2 * lane + 1] = Number(BigInt.asIntN(32, start >> 32n))
  })
  const carried = new Uint8Array(stripeBytes)
  let carriedBytes = 0
  let total = 0
  return {
    update(bytes) {
      total += bytes.length
      let from = 0
      if (carriedBytes > 0) {
        from = Math.min(stripeBytes - carriedBytes, bytes.length)
        carried.set(bytes.subarray(0, from), carriedBytes)
        carriedBytes += from
        if (carriedBytes < stripeBytes) return
        mixStripes(lanes, carried)
      }
      const whole = bytes.subarray(from, bytes.length - ((bytes.length - from) % stripeBytes))
      mixStripes(lanes, whole)
      const rest = bytes.subarray(from + whole.length)
      carried.set(rest)
      carriedBytes = rest.length
    },
    low32: () => Number(finish(lanes, total, carried.subarray(0, carriedBytes)) & 0xffff_ffffn),
  }
}

/** The least significant 32 bits of the XXH64 of `bytes`. */
export function xxh64Low32(bytes: Uint8Array): number {
  const hash = xxh64()
  hash.update(bytes)
  return hash.low32()
}

/**
 * Each of a stripe's four words goes into its lane: `lane = rotateLeft(lane + word * prime2, 31) * prime1`.
 */
function mixStripes(lanes: Int32Array, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at < bytes.length; at += 8) {
    const lane = (at >>> 2) & 6
    const wordLow = view.getInt32(at, true)
    const wordHigh = view.getInt32(at + 4, true)
    const addedLow = Math.imul(wordLow, 0x27d4eb4f) >>> 0
    const addedHigh =
      highHalf(wordLow, 0xeb4f, 0x27d4) + Math.imul(wordHigh, 0x27d4eb4f) + Math.imul(wordLow, 0xc2b2ae3d)
    const sumLow = (lanes[lane]! >>> 0) + addedLow
    const sumHigh = (lanes[lane + 1]! + addedHigh + (sumLow > 0xffff_ffff ? 1 : 0)) | 0
    const low = (sumLow << 31) | (sumHigh >>> 1)
    const high = (sumHigh << 31) | ((sumLow | 0) >>> 1)
    lanes[lane] = Math.imul(low, 0x85ebca87)
    lanes[lane + 1] = highHalf(low, 0xca87, 0x85eb) + Math.imul(high, 0x85ebca87) + Math.imul(low, 0x9e3779b1)
  }
}

/** The high 32 bits of the product of two unsigned words, the second given in halves of 16 bits. */
function highHalf(word: number, low16: number, high16: number): number {
  const unsigned = word >>> 0
  return Math.floor((unsigned * high16 + Math.floor((unsigned * low16) / 65_536)) / 65_536) | 0
}

function finish(lanes: Int32Array, total: number, tail: Uint8Array): bigint {
  let hash = total < stripeBytes ? prime5 : mergeLanes(lanes)
  hash = u64(hash + BigInt(total))
  const view = new DataView(tail.buffer, tail.byteOffset, tail.length)
  let at = 0
  for (; at + 8 <= tail.length; at += 8)
    hash = u64(rotateLeft(hash ^ mixWord(view.getBigUint64(at, true)), 27n) * prime1 + prime4)
  if (at + 4 <= tail.length) {
    hash = u64(rotateLeft(hash ^ u64(BigInt(view.getUint32(at, true)) * prime1), 23n) * prime2 + prime3)
    at += 4
  }
  for (; at < tail.length; at++)
    hash = u64(rotateLeft(hash ^ u64(BigInt(view.getUint8(at)) * prime5), 11n) * prime1)
  hash = u64((hash ^ (hash >> 33n)) * prime2)
  hash = u64((hash ^ (hash >> 29n)) * prime3)
  return hash ^ (hash >> 32n)
}

function mergeLanes(lanes: Int32Array): bigint {
  const words = [0, 2, 4, 6].map(
    (lane) => (BigInt(lanes[lane + 1]! >>> 0) << 32n) | BigInt(lanes[lane]! >>> 0),
  )
  const turns = [1n, 7n, 12n, 18n]
  const sum = words.reduce((hash, word, lane) => hash + rotateLeft(word, turns[lane]!), 0n)
  return words.reduce((hash, word) => u64((hash ^ mixWord(word)) * prime1 + prime4), u64(sum))
}

function mixWord(word: bigint): bigint {
  return u64(rotateLeft(u64(word * prime2), 31n) * prime1)
}

function rotateLeft(word: bigint, bits: bigint): bigint {
  return u64(word << bits) | (word >> (64n - bits))
}

function u64(value: bigint): bigint {
  return BigInt.asUintN(64, value)
}
