import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { StillframeError } from "@stillframe/domain/errors"
import { openDirectory } from "./open-directory.ts"

/** Connects to a unix socket in a directory whose path may be too long for a socket address. */
export async function connectIn(directory: string, socketName: string): Promise<Socket> {
  const { path, close } = openDirectory(directory)
  try {
    const socket = connect({ path: `${path}/${socketName}` })
    await once(socket, "connect")
    // Errors after this point end in "close", where every waiting command is told.
    socket.on("error", () => {})
    return socket
  } catch (error) {
    // Only these say that the process has ended. A full backlog, for one, says that others are waiting for their turn.
    const { code } = error as NodeJS.ErrnoException
    const gone = code === "ENOENT" || code === "ECONNREFUSED"
    throw new StillframeError(
      gone ? "hypervisor_gone" : "hypervisor_unavailable",
      gone
        ? `nobody listens on ${socketName}: the VM's process has ended`
        : `${socketName} can't be reached (${code}); try again`,
      { cause: error },
    )
  } finally {
    close()
  }
}
