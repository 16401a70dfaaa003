import { once } from "node:events"
import { fstatSync } from "node:fs"
import { open, rm, type FileHandle } from "node:fs/promises"
import { createServer, type Server } from "node:net"
import { join } from "node:path"
import { openDirectory } from "../../files/open-directory.ts"
import { giveSocket } from "../../process/own-socket.ts"
import { openCopier } from "./copier.ts"

const SINK_SOCKET = "save.sock"

/** Takes a save's stream from QEMU into a file. */
export interface MemorySink {
  /** The target of QEMU's stream. */
  uri: string
  /**
   * Lets the copying begin, as soon as QEMU sends something. Until then QEMU may send what fits into a
   * socket's buffer. To start the copying process stops ours for milliseconds, on a busy machine for tens of
   * them.
   */
  copy(): void
  /** Bytes that have reached the file so far. */
  bytes(): number
  /**
   * Resolves with the file's size when the stream has ended and all of it is in the file (not yet on the
   * device). Rejects with `insufficient_storage` or `storage_failed`. Call it only after QEMU was told to
   * save.
   */
  finished(): Promise<number>
  /** Why the copying failed, if it did by itself. */
  failure(): Promise<unknown>
  /** Ends the copying at once, so that QEMU's next write fails. The file stays until `discard`. */
  abandon(): void
  /** Ends the copying and removes the file. */
  discard(): Promise<void>
  /** Frees the socket and the descriptor; the file stays. */
  close(): Promise<void>
}

/**
 * Listens for QEMU's stream. The accepted socket becomes the standard input of a copying process: a stream of
 * Node's in between makes the pause 2.2 times as long as `exec:cat`. `memoryFile` must not exist. `dir` is
 * QEMU's working directory, so its path may be of any length; with `absolute` it is another one, of at most
 * 90 bytes.
 */
export async function openMemorySink({
  dir,
  memoryFile,
  absolute = false,
}: {
  dir: string
  memoryFile: string
  absolute?: boolean
}): Promise<MemorySink> {
  const file = await open(memoryFile, "wx", 0o600)
  const directory = openDirectory(dir)
  // Paused, or Node would read the stream's first bytes before the copying process has the socket.
  const server = createServer({ pauseOnConnect: true })
  const copier = openCopier({ file, dir })
  server.once("connection", (socket) => {
    copier.take(socket)
    server.close()
  })
  try {
    await rm(join(dir, SINK_SOCKET), { force: true })
    server.listen(`${directory.path}/${SINK_SOCKET}`)
    await once(server, "listening")
    giveSocket(dir, SINK_SOCKET)
  } catch (error) {
    await release(server, directory, file)
    await rm(memoryFile, { force: true })
    throw error
  }
  const close = async (): Promise<void> => {
    copier.abandon()
    await copier.gone()
    await release(server, directory, file)
  }
  return {
    uri: `unix:${absolute ? join(dir, SINK_SOCKET) : SINK_SOCKET}`,
    copy: () => copier.start(),
    bytes: () => fstatSync(file.fd).size,
    finished: async () => {
      await copier.copied
      return (await file.stat()).size
    },
    failure: async () => await copier.failure(),
    abandon: () => copier.abandon(),
    discard: async () => {
      await close()
      await rm(memoryFile, { force: true })
    },
    close,
  }
}

/**
 * The listening socket's name is removed by closing it, through the directory's descriptor: so that one goes
 * last.
 */
async function release(server: Server, directory: { close: () => void }, file: FileHandle): Promise<void> {
  if (server.listening) server.close()
  directory.close()
  await file.close()
}
