import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { assertSourcesUnchanged, readDisksAtRest } from "@stillframe/hypervisors/disks"
import { endProcess, type ProcessIdentity } from "@stillframe/hypervisors/processes"
import { findQemu } from "@stillframe/hypervisors/qemu/find-process"
import { renewTops } from "@stillframe/hypervisors/qemu/layers"
import { prepareLaunch, startGuest } from "@stillframe/hypervisors/qemu/prepare-launch"
import { launchQemu, type LaunchOptions } from "@stillframe/hypervisors/qemu/process"
import { stopQemu } from "@stillframe/hypervisors/qemu/stop"
import { generationDir, instanceDir, standbyDir } from "@stillframe/storage/layout"
import type { EndOrder, LaunchOrder, RestoreOrder, StartOrder, StopOrder } from "./orders.ts"

const endGraceMs = 2_000

/** Starts a VM from the caller's files. When it fails, nothing of the instance is left on the host. */
export async function carryOutLaunch(order: LaunchOrder, signal: AbortSignal): Promise<ProcessIdentity> {
  const dir = directoryOf(order)
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const rules = { hostPaths: order.hostPaths, dataDir: order.dataDir }
    const disks = await prepareLaunch(order.launch, { dir, qemuImg: order.qemu.qemuImg, signal, rules })
    const vm = await launchQemu({ dir, disks, signal, ...processOptions(order) })
    await startGuest(dir)
    return vm
  } catch (error) {
    await carryOutEnd({ ...order, kind: "end", remove: "instance" })
    throw error
  }
}

/** Boots a stopped VM on the disks in its directory. When it fails, no process is left and the disks are as they were. */
export async function carryOutStart(order: StartOrder, signal: AbortSignal): Promise<ProcessIdentity> {
  const dir = directoryOf(order)
  const atRest = await readDisksAtRest(dir)
  await assertSourcesUnchanged(dir, atRest)
  const disks = await renewTops(atRest, { dir, qemuImg: order.qemu.qemuImg, signal })
  const vm = await launchQemu({ dir, disks, signal, ...processOptions(order) })
  try {
    await startGuest(dir)
    return vm
  } catch (error) {
    await endProcess(vm, { graceMs: 0 })
    throw error
  }
}

/** Done twice it is done. */
export async function carryOutStop(order: StopOrder, signal: AbortSignal): Promise<null> {
  const vm = await findQemu(identityOf(order))
  if (vm !== undefined)
    await stopQemu(directoryOf(order), vm, { guestMs: order.guestMs, processMs: endGraceMs, signal })
  return null
}

/** Ends the VM's process, however it is found, and removes its files. Done twice it is done. */
export async function carryOutEnd(order: EndOrder): Promise<null> {
  const running = await findQemu(identityOf(order))
  if (running !== undefined) await endProcess(running, { graceMs: endGraceMs })
  const { dataDir, instanceId, token } = order
  const made =
    order.remove === "instance"
      ? [instanceDir(dataDir, instanceId)]
      : [directoryOf(order), join(standbyDir(dataDir, instanceId), token)]
  for (const dir of made) await rm(dir, { recursive: true, force: true })
  return null
}

/** How the host finds the process again: by cluster and instance, never by the binary's name. */
export function identityOf({ clusterId, instanceId }: { clusterId: string; instanceId: string }): string {
  return `stillframe-${clusterId}-${instanceId}`
}

export function processOptions(
  order: LaunchOrder | StartOrder | RestoreOrder,
): Pick<LaunchOptions, "binary" | "config" | "identity" | "runAs"> {
  const { binary, runAs } = order.qemu
  return { binary, config: order.launch, identity: identityOf(order), ...(runAs !== undefined && { runAs }) }
}

function directoryOf(order: { dataDir: string; instanceId: string; generation: number }): string {
  return generationDir(order.dataDir, order.instanceId, order.generation)
}
