import { StillframeError } from "@stillframe/domain/errors"
import { logHasWhy } from "../../refusal.ts"
import type { Monitor } from "../monitor/qmp.ts"

/** QEMU's default of 128 MiB/s holds for stopped VMs too, and would make the pause several times as long. */
const BANDWIDTH_BYTES_PER_S = 2 ** 40
const BACKGROUND = "background-snapshot"

/**
 * Settings that a save and its load must share; refused by QEMU while a migration is under way. With
 * `background` a save holds the memory as it was at its start while the guest goes on; without, what an
 * earlier save may have left of that is taken back.
 */
export async function setUpMigration(monitor: Monitor, { background = false } = {}): Promise<void> {
  const capabilities = [
    { capability: "events", state: true },
    // QEMU accepts both together, and nobody can load what comes out.
    ...(background ? [{ capability: "mapped-ram", state: false }] : []),
    // A QEMU before 6.0 refuses the very name.
    ...(background || (await isSwitchedOn(monitor, BACKGROUND))
      ? [{ capability: BACKGROUND, state: background }]
      : []),
  ]
  await monitor.execute("migrate-set-capabilities", { capabilities })
  await monitor.execute("migrate-set-parameters", { "max-bandwidth": BANDWIDTH_BYTES_PER_S })
}

async function isSwitchedOn(monitor: Monitor, name: string): Promise<boolean> {
  const all = await monitor.execute<{ capability: string; state: boolean }[]>("query-migrate-capabilities")
  return all.some(({ capability, state }) => capability === name && state)
}

/**
 * Waits for the end of the next migration; make it before the command that starts one. Rejects with
 * `hypervisor_failed` when it failed or was cancelled, `hypervisor_gone` when QEMU ended.
 */
export function migrationEnd(monitor: Monitor): { promise: Promise<void>; stop: () => void } {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  // A caller that stops waiting early reports its own error.
  promise.catch(() => {})
  const stop = monitor.subscribe(({ event, data }) => {
    if (event !== "MIGRATION") return
    if (data?.["status"] === "completed") resolve()
    if (data?.["status"] === "cancelled")
      reject(new StillframeError("hypervisor_failed", "another program cancelled the migration"))
    if (data?.["status"] === "failed") void failureOf(monitor).then(reject)
  })
  void monitor.closed.then((breach) =>
    reject(breach ?? new StillframeError("hypervisor_gone", "QEMU ended while its memory was transferred")),
  )
  return { promise, stop }
}

async function failureOf(monitor: Monitor): Promise<Error> {
  try {
    const { "error-desc": reason } = await monitor.execute<{ "error-desc"?: string }>("query-migrate")
    return new StillframeError("hypervisor_failed", `QEMU could not transfer the memory; ${logHasWhy}`, {
      said: reason,
    })
  } catch (error) {
    // A process that fails to load exits; its last words are in the log.
    return error as Error
  }
}
