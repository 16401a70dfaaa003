import { once } from "node:events"
import { connect, createServer, type AddressInfo, type Socket } from "node:net"

/** Stands before a server and can be cut off from it. */
export interface Cuttable extends AsyncDisposable {
  /** The server's own URL, through this. */
  readonly url: string
  /** Ends every connection, and each new one as soon as it is made. */
  cut(): void
  restore(): void
  /** How many connections were made in vain since the last cut. */
  readonly refused: number
}

export async function cuttable(serverUrl: string): Promise<Cuttable> {
  const target = new URL(serverUrl)
  const sockets = new Set<Socket>()
  let isCut = false
  let refused = 0

  const server = createServer((socket) => {
    if (isCut) {
      refused += 1
      socket.destroy()
      return
    }
    const upstream = connect(Number(target.port), target.hostname)
    for (const [one, other] of [
      [socket, upstream],
      [upstream, socket],
    ] as const) {
      sockets.add(one)
      one.pipe(other)
      // An end that breaks takes the other one along.
      one.on("error", () => other.destroy())
      one.on("close", () => {
        sockets.delete(one)
        other.destroy()
      })
    }
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const url = new URL(serverUrl)
  url.hostname = "127.0.0.1"
  url.port = String((server.address() as AddressInfo).port)

  function cut(): void {
    isCut = true
    refused = 0
    for (const socket of sockets) socket.destroy()
  }

  return {
    url: url.href,
    cut,
    restore: () => void (isCut = false),
    get refused() {
      return refused
    },
    async [Symbol.asyncDispose]() {
      cut()
      server.close()
      await once(server, "close")
    },
  }
}
