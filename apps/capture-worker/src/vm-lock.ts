import { once } from "node:events"
import { createServer } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"

const retryMs = 20

/**
 * Holds the right to send commands to a VM: an abstract unix socket, which the kernel frees when its holder dies and not
 * before, so to get it is the proof that nobody else can act. Throws `conflict` when it is not free within `waitMs`.
 */
export async function holdVmLock(
  { clusterId, instanceId }: { clusterId: string; instanceId: string },
  waitMs: number,
): Promise<AsyncDisposable> {
  const path = `\0stillframe/${clusterId}/${instanceId}`
  const deadline = performance.now() + waitMs
  for (;;) {
    const server = createServer((socket) => socket.destroy())
    try {
      server.listen({ path })
      await once(server, "listening")
      return {
        async [Symbol.asyncDispose]() {
          server.close()
          await once(server, "close")
        },
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error
      if (performance.now() > deadline)
        throw new StillframeError("conflict", `another operation holds instance ${instanceId}`, {
          cause: error,
        })
      await delay(retryMs)
    }
  }
}
