import { stat } from "node:fs/promises"
import { holdSocket } from "../pause/hold-socket.ts"

/** The worker before this one may still be ending. */
const waitMs = 3_000

/**
 * Holds `dataDir` for one worker. Throws `conflict` where another worker of this machine holds it, by
 * whatever path.
 */
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

/**
 * Holds the id in a `host.json` for one worker. Throws `conflict` where another worker of this machine holds
 * it: then one of the two directories is a copy. Another machine's is found out by the heartbeat.
 */
export async function holdHostId(dataDir: string, hostId: string): Promise<AsyncDisposable> {
  const held = await holdSocket(`\0stillframe-host/${hostId}`, {
    waitMs,
    taken: `another capture-worker of this machine runs on a directory whose host.json has the same id as that in DATA_DIR ${dataDir}: one of the two is a copy. Stop one of the two workers. To make the copy a host of its own, remove host.json and instances/ from it, set HOST_NAME to a name of its own, and start it again`,
  })
  held.unref()
  return held
}
