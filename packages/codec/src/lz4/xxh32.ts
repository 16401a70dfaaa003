const prime1 = 0x9e3779b1
const prime2 = 0x85ebca77
const prime3 = 0xc2b2ae3d
const prime4 = 0x27d4eb2f
const prime5 = 0x165667b1

/**
 * The XXH32 (seed 0) of a part of `bytes`, the checksum of LZ4's frame format. For a few KiB: it is one call
 * of plain JavaScript.
 */
export function xxh32(bytes: Uint8Array, start: number, end: number): number {
  let at = start
  let hash: number = prime5
  if (end - start >= 16) {
    let [lane1, lane2, lane3, lane4] = [(prime1 + prime2) | 0, prime2 | 0, 0, -prime1 | 0]
    for (; at + 16 <= end; at += 16) {
      lane1 = mixed(lane1, wordAt(bytes, at))
      lane2 = mixed(lane2, wordAt(bytes, at + 4))
      lane3 = mixed(lane3, wordAt(bytes, at + 8))
      lane4 = mixed(lane4, wordAt(bytes, at + 12))
    }
    hash = rotateLeft(lane1, 1) + rotateLeft(lane2, 7) + rotateLeft(lane3, 12) + rotateLeft(lane4, 18)
  }
  hash = (hash + end - start) | 0
  for (; at + 4 <= end; at += 4)
    hash = Math.imul(rotateLeft((hash + Math.imul(wordAt(bytes, at), prime3)) | 0, 17), prime4)
  for (; at < end; at++) hash = Math.imul(rotateLeft((hash + Math.imul(bytes[at]!, prime5)) | 0, 11), prime1)
  hash = Math.imul(hash ^ (hash >>> 15), prime2)
  hash = Math.imul(hash ^ (hash >>> 13), prime3)
  return (hash ^ (hash >>> 16)) >>> 0
}

function mixed(lane: number, word: number): number {
  return Math.imul(rotateLeft((lane + Math.imul(word, prime2)) | 0, 13), prime1)
}

function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
}

function rotateLeft(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits))
}
