import { holdSocket } from "./hold-socket.ts"

/**
 * Holds the right to send commands to a VM. Throws `conflict` when another process still has it after
 * `waitMs`.
 */
export async function holdVmLock(
  { clusterId, instanceId }: { clusterId: string; instanceId: string },
  waitMs: number,
): Promise<AsyncDisposable> {
  return await holdSocket(`\0stillframe/${clusterId}/${instanceId}`, {
    waitMs,
    taken: `another operation holds instance ${instanceId}`,
  })
}
