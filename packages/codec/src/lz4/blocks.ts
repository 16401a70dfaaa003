/**
 * The most content that the blocks of exactly one LZ4 frame can give and the size of the largest of them,
 * both in bytes, from the lengths alone (LZ4 frame format 1.6.1). Throws for bytes that do not end with the
 * frame.
 */
export function lz4ContentMax(frame: Uint8Array): { contentMax: number; blockMax: number } {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length)
  if (frame.length < headerBytesMin) throw notOneFrame()
  const flags = view.getUint8(4)
  const blockMax = 256 << (2 * ((view.getUint8(5) >> 4) & 7))
  const blockChecksumBytes = flags & 0x10 ? 4 : 0
  let contentMax = 0
  let at = headerBytesMin + (flags & 0x08 ? 8 : 0) + (flags & 0x01 ? 4 : 0)
  for (;;) {
    if (at + 4 > frame.length) throw notOneFrame()
    const word = view.getUint32(at, true)
    at += 4
    if (word === 0) break
    const blockBytes = word & 0x7fff_ffff
    contentMax += Math.min(blockMax, word === blockBytes ? blockBytes * expansionMax : blockBytes)
    at += blockBytes + blockChecksumBytes
  }
  if (at + (flags & 0x04 ? 4 : 0) !== frame.length) throw notOneFrame()
  return { contentMax, blockMax }
}

const headerBytesMin = 7
const expansionMax = 255

function notOneFrame(): Error {
  return new Error("the bytes are not exactly one LZ4 frame")
}
