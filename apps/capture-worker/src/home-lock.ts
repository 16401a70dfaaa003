import { once } from "node:events"
import { stat } from "node:fs/promises"
import { createServer } from "node:net"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"

const retryMs = 50
/** The worker before this one may still be ending. */
const waitMs = 3_000

/**
 * Holds `dataDir` for one worker: an abstract unix socket, which the kernel frees when its holder ends, however that ends.
 * Throws `conflict` where another worker of this machine holds it, by whatever path.
 */
export async function holdHome(dataDir: string): Promise<AsyncDisposable> {
  const { dev, ino } = await stat(dataDir)
  const path = `\0stillframe-home/${dev}-${ino}`
  const deadline = performance.now() + waitMs
  for (;;) {
    const server = createServer((socket) => socket.destroy())
    try {
      server.listen({ path })
      await once(server, "listening")
      // It holds the directory for as long as the process lives, and does not keep it alive.
      server.unref()
      return {
        async [Symbol.asyncDispose]() {
          server.close()
          await once(server, "close")
        },
      }
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EADDRINUSE") throw cause
      if (performance.now() > deadline)
        throw new StillframeError(
          "conflict",
          `another capture-worker runs on DATA_DIR ${dataDir}: stop it, or give this one a DATA_DIR and a HOST_NAME of its own`,
          { cause },
        )
      await delay(retryMs)
    }
  }
}
