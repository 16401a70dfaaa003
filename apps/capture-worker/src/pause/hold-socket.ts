import { once } from "node:events"
import { createServer } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"

const retryMs = 20

/**
 * Holds an abstract unix socket, which the kernel frees when its holder dies and not before: to get it proves
 * that no other process has it. Waits up to `waitMs`, then throws `conflict` with the text in `taken`.
 */
export async function holdSocket(
  path: string,
  { waitMs, taken }: { waitMs: number; taken: string },
): Promise<AsyncDisposable & { unref(): void }> {
  const deadline = performance.now() + waitMs
  for (;;) {
    const server = createServer((socket) => socket.destroy())
    try {
      server.listen({ path })
      await once(server, "listening")
      return {
        unref: () => void server.unref(),
        async [Symbol.asyncDispose]() {
          server.close()
          await once(server, "close")
        },
      }
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EADDRINUSE") throw cause
      if (performance.now() > deadline) throw new StillframeError("conflict", taken, { cause })
      await delay(retryMs)
    }
  }
}
