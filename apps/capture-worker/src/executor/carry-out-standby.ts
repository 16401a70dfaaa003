import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { endProcess } from "@stillframe/hypervisors/process/processes"
import { standbyDir } from "@stillframe/storage/layout"
import { sealedAttempt, type Manifest } from "@stillframe/storage/manifest"
import { identityOf } from "../host/vm-identity.ts"
import type { StandbyOrder } from "./orders.ts"
import { saveVmAndEnd, type Captor } from "./save-vm.ts"
import { seal } from "./seal.ts"

const endGraceMs = 2_000

/**
 * Puts a running VM away: memory and frozen disks sealed on the device, and only then its process ended.
 * Until that moment every failure resumes it. When the process has gone already, an earlier try came this far
 * and its image is the result.
 */
export async function carryOutStandby(order: StandbyOrder, captor: Captor): Promise<Manifest> {
  const images = standbyDir(order.dataDir, order.instanceId)
  const running = await (await hypervisorOf(order.hypervisor)).find(identityOf(order))
  if (running === undefined) {
    const sealed = await sealedAttempt(images)
    if (sealed !== undefined) return sealed
    throw new StillframeError("hypervisor_gone", "the VM's process has ended; start the instance")
  }
  // Images of tries after which the VM was resumed: its state is outdated.
  await rm(images, { recursive: true, force: true })
  const dir = join(images, order.token)
  await mkdir(dir, { recursive: true, mode: 0o700 })
  try {
    return await saveVmAndEnd(order, captor, {
      dir,
      async work(capture) {
        const manifest = await seal(order, dir, { kind: "Standby", ...capture, signal: captor.signal })
        captor.signal.throwIfAborted()
        await endProcess(running, { graceMs: endGraceMs })
        return manifest
      },
    })
  } catch (error) {
    await rm(images, { recursive: true, force: true })
    throw captor.signal.aborted ? cancelled(error) : error
  }
}

function cancelled(cause: unknown): StillframeError {
  return new StillframeError("cancelled", "the standby was cancelled and the VM resumed", { cause })
}
