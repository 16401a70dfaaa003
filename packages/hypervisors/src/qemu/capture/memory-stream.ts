import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { openRegular } from "@stillframe/storage/open-regular"

/** QEMU's stream: "QEVM", version 3 (migration/savevm.c). */
const MAGIC = Buffer.from("5145564d00000003", "hex")
/** The last section: its type, a 32-bit length, and that many bytes of JSON up to the end of the file. */
const DESCRIPTION_SECTION = 0x06
const DESCRIPTION_BYTES_MAX = 4 * 1024 * 1024

/**
 * Checks that a saved stream has its beginning and its end. A stream that QEMU broke off looks whole to a
 * reader, since its death closes the socket like a good end. Throws `corrupted`.
 */
export async function assertWholeStream(path: string): Promise<void> {
  const file = await openRegular(path)
  try {
    const { size } = await file.stat()
    const head = Buffer.alloc(MAGIC.length)
    await file.read(head, 0, head.length, 0)
    const tail = Buffer.alloc(Math.min(size, DESCRIPTION_BYTES_MAX))
    await file.read(tail, 0, tail.length, size - tail.length)
    if (head.equals(MAGIC) && endsInDescription(tail)) return
    throw new StillframeError(
      "corrupted",
      `the saved memory (${counted(size, "byte")}) has no proper beginning and end; take the snapshot again`,
    )
  } finally {
    await file.close()
  }
}

/** True if the bytes end in a whole device description. */
export function endsInDescription(tail: Buffer): boolean {
  for (
    let at = tail.indexOf(DESCRIPTION_SECTION);
    at !== -1;
    at = tail.indexOf(DESCRIPTION_SECTION, at + 1)
  ) {
    const json = at + 5
    if (json < tail.length && tail.readUInt32BE(at + 1) === tail.length - json)
      return isJson(tail.toString("utf8", json))
  }
  return false
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    // Not JSON is the answer, not an error.
    return false
  }
}
