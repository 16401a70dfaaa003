import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { StillframeError } from "@stillframe/domain/errors"
import { openDirectory } from "./open-directory.ts"

/**
 * Connects to a unix socket in a directory whose path may be too long for a socket address. Throws `hypervisor_gone` when nobody listens,
 * `hypervisor_silent` when the process takes no connections, and `hypervisor_unavailable` otherwise.
 */
export async function connectIn(directory: string, socketName: string): Promise<Socket> {
  const { path, close } = openDirectory(directory)
  try {
    const socket = connect({ path: `${path}/${socketName}` })
    await once(socket, "connect")
    // Errors after this point end in "close", where every waiting command is told.
    socket.on("error", () => {})
    return socket
  } catch (error) {
    throw notReached(socketName, error)
  } finally {
    close()
  }
}

function notReached(socketName: string, cause: unknown): StillframeError {
  const { code } = cause as NodeJS.ErrnoException
  // Only these say that the process has ended.
  if (code === "ENOENT" || code === "ECONNREFUSED")
    return new StillframeError(
      "hypervisor_gone",
      `nobody listens on ${socketName}: the VM's process has ended`,
      { cause },
    )
  // Its backlog is full: others wait for their turn, or it has hung for as many connections.
  if (code === "EAGAIN")
    return new StillframeError(
      "hypervisor_silent",
      `${socketName} takes no more connections: the VM's process is stopped, hangs or is busy with other programs; let it go on, and try again`,
      { cause },
    )
  return new StillframeError(
    "hypervisor_unavailable",
    `${socketName} can't be reached (${code}); try again`,
    {
      cause,
    },
  )
}
