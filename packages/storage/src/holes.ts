import koffi from "koffi"

/** Tells which parts of one file the file system keeps no data for. Not shared between threads. */
export interface Holes {
  /** True if these bytes are a hole, and so zeros. False where the file system cannot tell. */
  cover(position: number, length: number): boolean
}

/** lseek(2) on Linux; other systems number these differently. */
const seekEnd = 2
const seekData = 3
const noSuchAddress = 6

/**
 * The answers come from SEEK_DATA, which moves the offset of `fd`: read it by position only. `fileBytes` is
 * the size that the file had when it was opened; behind the end of one that became shorter there are no
 * holes. A file system that calls data a hole is found out by the SHA-256 of the source, which is taken by
 * reading all of it.
 */
export function holesOf(fd: number, fileBytes: number): Holes {
  const seek = loadSeek()
  let asked = 0
  let data = 0
  return {
    cover(position, length) {
      if (!seek) return false
      if (position < asked || position >= data) {
        asked = position
        data = nextData(seek, fd, position, fileBytes)
      }
      return position + length <= data
    },
  }
}

type Seek = (fd: number, offset: number, whence: number) => number | bigint

function nextData(seek: Seek, fd: number, position: number, fileBytes: number): number {
  const found = Number(seek(fd, position, seekData))
  if (found >= 0) return found
  // No data up to the end, unless the end has moved. Anything else: the file system cannot tell.
  const isHole = koffi.errno() === noSuchAddress && Number(seek(fd, 0, seekEnd)) >= fileBytes
  return isHole ? fileBytes : position
}

let loaded: { seek: Seek | undefined } | undefined

function loadSeek(): Seek | undefined {
  loaded ??= { seek: process.platform === "linux" ? bindSeek() : undefined }
  return loaded.seek
}

function bindSeek(): Seek | undefined {
  try {
    return koffi.load(null).func("int64_t lseek(int, int64_t, int)") as Seek
  } catch {
    // Holes are then read like anything else, as zeros.
    return undefined
  }
}
