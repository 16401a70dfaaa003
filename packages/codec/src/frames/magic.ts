/** RFC 8878 §3.1.1. */
export const zstdMagic = 0xfd2fb528
/** LZ4 frame format 1.6.1. */
export const lz4Magic = 0x184d2204
export const lz4LegacyMagic = 0x184c2102

/** The skippable frame that a seek table is in. */
export const seekTableMagic = 0x184d2a5e

/** A frame that both formats skip: this, its size, and that many bytes of anything. */
export function isSkippable(magic: number): boolean {
  return magic >= 0x184d2a50 && magic <= 0x184d2a5f
}

/** Formats 0.1 to 0.7 of zstd, which only a zstd built for them reads. */
export function isLegacyZstd(magic: number): boolean {
  return magic === 0x1eb52ffd || (magic >= 0xfd2fb522 && magic <= 0xfd2fb527)
}
