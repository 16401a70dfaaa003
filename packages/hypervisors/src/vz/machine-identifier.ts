/** The offsets of the three objects of the list: the dictionary, its key and its value. */
const offsets = [8, 11, 16]
const offsetTableAt = 35

/**
 * The content of `VZGenericMachineIdentifier.dataRepresentation`: a binary property list of one dictionary,
 * `{UUID: <16 bytes>}`, of 70 bytes in all. The framework makes an identifier of nothing else.
 */
export function machineIdentifierData(uuid: Uint8Array): Buffer {
  const trailer = Buffer.alloc(32)
  trailer.set([1, 1], 6)
  trailer.writeBigUInt64BE(BigInt(offsets.length), 8)
  trailer.writeBigUInt64BE(BigInt(offsetTableAt), 24)
  return Buffer.concat([
    Buffer.from("bplist00", "latin1"),
    Buffer.of(0xd1, 1, 2),
    Buffer.from("\u0054UUID", "latin1"),
    Buffer.of(0x4f, 0x10, 0x10),
    uuid,
    Buffer.from(offsets),
    trailer,
  ])
}
