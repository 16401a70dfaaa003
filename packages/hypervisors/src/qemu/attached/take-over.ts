import { ensureRunning } from "../monitor/resume.ts"
import { openControlSocket } from "./control-socket.ts"
import { dropUnusedOverlays, settleOverlays, type MergeHooks } from "./overlay/merge-overlays.ts"

interface AttachedPlace {
  controlSocket: string
  /** The instance's directory. */
  home: string
}

/**
 * Makes an attached VM run after its captor died in one of its pauses. Overlays that it was led back from go
 * first: an overlay that is older than the disk must not exist once the guest writes. Throws as `openMonitor`
 * and `ensureRunning` do.
 */
export async function resumeAttached({ controlSocket, home }: AttachedPlace): Promise<void> {
  const monitor = await openControlSocket(controlSocket)
  try {
    await dropUnusedOverlays(monitor, home)
    await ensureRunning(monitor)
  } finally {
    monitor.close()
  }
}

/**
 * Leads a running attached VM back to its own files after a capture that was broken off: `settleOverlays` on
 * a connection of its own.
 */
export async function settleAttached(
  { controlSocket, home }: AttachedPlace,
  hooks: MergeHooks,
): Promise<void> {
  const monitor = await openControlSocket(controlSocket)
  try {
    await settleOverlays(monitor, home, hooks)
  } finally {
    monitor.close()
  }
}
