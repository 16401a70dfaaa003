import { stat } from "node:fs/promises"
import { holdSocket } from "./hold-socket.ts"

/** The worker before this one may still be ending. */
const waitMs = 3_000

/** Holds `dataDir` for one worker. Throws `conflict` where another worker of this machine holds it, by whatever path. */
export async function holdHome(dataDir: string): Promise<AsyncDisposable> {
  const { dev, ino } = await stat(dataDir)
  const held = await holdSocket(`\0stillframe-home/${dev}-${ino}`, {
    waitMs,
    taken: `another capture-worker runs on DATA_DIR ${dataDir}: stop it, or give this one a DATA_DIR and a HOST_NAME of its own`,
  })
  // It holds the directory for as long as the process lives, and does not keep it alive.
  held.unref()
  return held
}
