import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { fstatSync } from "node:fs"
import { open, rm, type FileHandle } from "node:fs/promises"
import { createServer, type Server, type Socket } from "node:net"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { openDirectory } from "../open-directory.ts"
import { copierVariable } from "./copiers.ts"
import { giveToOwnerOf } from "./layers.ts"

const SINK_SOCKET = "save.sock"
/** QEMU may report the broken pipe before we hear that the copier died. */
const FAILURE_WAIT_MS = 1000

/** Takes a save's stream from QEMU into a file. */
export interface MemorySink {
  /** Where QEMU sends it. */
  uri: string
  /** Bytes that have reached the file so far. */
  bytes(): number
  /**
   * Resolves with the file's size when the stream has ended and all of it is in the file (not yet on the device). Rejects with
   * `insufficient_storage` or `storage_failed`. Call it only after QEMU was told to save.
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
 * Listens for QEMU's stream. The accepted socket becomes the standard input of a copying process: a stream of Node's in between makes the
 * pause 2.2 times as long as `exec:cat`. `memoryFile` must not exist. `dir` is QEMU's working directory, so its path may be of any length;
 * with `absolute` it is another one, of at most 90 bytes.
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
  let copier: ChildProcess | undefined
  const copied = Promise.withResolvers<void>()
  // Whoever waits for the copy is told; this only keeps Node from ending the process when nobody does yet.
  copied.promise.catch(() => {})

  server.once("connection", (socket) => {
    copier = startCopying({ socket, file, dir }, copied)
    server.close()
  })
  try {
    await rm(join(dir, SINK_SOCKET), { force: true })
    server.listen(`${directory.path}/${SINK_SOCKET}`)
    await once(server, "listening")
    await giveToOwnerOf(dir, SINK_SOCKET)
  } catch (error) {
    await release(server, directory, file)
    await rm(memoryFile, { force: true })
    throw error
  }
  let abandoned = false
  const abandon = (): void => {
    abandoned = true
    copier?.kill("SIGKILL")
  }
  const close = async (): Promise<void> => {
    abandon()
    if (copier !== undefined) await copied.promise.catch(() => {})
    await release(server, directory, file)
  }
  return {
    uri: `unix:${absolute ? join(dir, SINK_SOCKET) : SINK_SOCKET}`,
    bytes: () => fstatSync(file.fd).size,
    finished: async () => {
      await copied.promise
      return (await file.stat()).size
    },
    failure: async () => {
      if (copier === undefined || abandoned) return undefined
      const reason = copied.promise.then(
        () => undefined,
        (error: unknown) => error,
      )
      return await Promise.race([reason, delay(FAILURE_WAIT_MS, undefined, { ref: false })])
    },
    abandon,
    discard: async () => {
      await close()
      await rm(memoryFile, { force: true })
    },
    close,
  }
}

function startCopying(
  { socket, file, dir }: { socket: Socket; file: FileHandle; dir: string },
  copied: PromiseWithResolvers<void>,
): ChildProcess {
  const copier = spawn("cat", [], {
    stdio: [socket, file.fd, "pipe"],
    // A Ctrl-C at the terminal goes to the whole session and must not end a save.
    detached: true,
    // In the C locale the reason below is always spelled the same.
    env: { LC_ALL: "C", PATH: "/usr/local/bin:/usr/bin:/bin", [copierVariable]: dir },
  })
  // Our end must go, or QEMU would never see the copier's death.
  socket.destroy()
  let complaint = ""
  copier.stderr?.setEncoding("utf8").on("data", (text: string) => (complaint += text))
  copier.once("error", (error) =>
    copied.reject(storageError(`the copying process could not start: ${error.message}`)),
  )
  copier.once("close", (status, signal) => {
    if (status === 0) copied.resolve()
    else copied.reject(storageError(complaint.trim() || `the copying process ended with ${signal ?? status}`))
  })
  return copier
}

function storageError(complaint: string): StillframeError {
  if (/No space left on device|Disk quota exceeded/.test(complaint)) {
    return new StillframeError(
      "insufficient_storage",
      "the disk became full while the memory was saved; free some space and try again",
    )
  }
  return new StillframeError("storage_failed", `the memory could not be written: ${complaint}`)
}

/** The listening socket's name is removed by closing it, through the directory's descriptor: so that one goes last. */
async function release(server: Server, directory: { close: () => void }, file: FileHandle): Promise<void> {
  if (server.listening) server.close()
  directory.close()
  await file.close()
}
