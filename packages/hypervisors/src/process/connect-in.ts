import { once } from "node:events"
import { connect, type Socket } from "node:net"
import { notReached, openOwnSocket, type SocketKind } from "./own-socket.ts"

/**
 * Connects to a VM's unix socket in a directory whose path may be too long for a socket address. Throws as
 * `openOwnSocket` does, `hypervisor_gone` when nobody listens, `hypervisor_silent` when the process takes no
 * connections, and `hypervisor_unavailable` otherwise.
 */
export async function connectIn(
  directory: string,
  socketName: string,
  kind: SocketKind = "vm",
): Promise<Socket> {
  const { path, close } = openOwnSocket(directory, socketName, kind)
  try {
    const socket = connect({ path })
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
