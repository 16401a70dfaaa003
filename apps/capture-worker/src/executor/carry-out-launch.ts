import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { Disk } from "@stillframe/hypervisors/disks/disks"
import type { ImportProgress } from "@stillframe/hypervisors/disks/launch-files"
import { assertOwnFiles } from "@stillframe/hypervisors/files/own-file"
import type { Hypervisor, VmLaunch } from "@stillframe/hypervisors/hypervisor"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import type { GuestConfig } from "@stillframe/hypervisors/launch-config"
import { findVms } from "@stillframe/hypervisors/process/find-vms"
import { endProcess, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { exists } from "@stillframe/storage/exists"
import { generationDir, instanceDir, standbyDir } from "@stillframe/storage/layout"
import { findRecorded } from "../host/recorded-process.ts"
import { identityOf } from "../host/vm-identity.ts"
import { blamed, partsOf } from "./blame.ts"
import { claimVmUser } from "./claim-vm-user.ts"
import type { EndOrder, Launched, LaunchOrder, RestoreOrder, StartOrder, StopOrder } from "./orders.ts"

const endGraceMs = 2_000

/** Starts a VM from the caller's files. When it fails, nothing of the instance is left on the host. */
export async function carryOutLaunch(
  order: LaunchOrder,
  signal: AbortSignal,
  onImport: (progress: ImportProgress) => void,
): Promise<Launched> {
  const dir = directoryOf(order)
  try {
    await using user = await claimVmUser(order)
    const hypervisor = await hypervisorOf(user.hypervisor)
    await mkdir(dir, { recursive: true, mode: 0o700 })
    const rules = { hostPaths: order.hostPaths, dataDir: order.dataDir }
    const disks = await hypervisor.prepare(order.launch, { dir, signal, rules, onImport })
    const { pid } = await hypervisor.launch({ dir, disks, signal, ...whoseVm(order) })
    await hypervisor.begin(dir)
    return { pid, launch: withImages(order.launch, disks) }
  } catch (error) {
    await carryOutEnd({ ...order, kind: "end", remove: "instance" })
    throw blamed(error, {
      code: "invalid_request",
      hypervisor: order.hypervisor.name,
      suspects: order.suspects,
    })
  }
}

/** The launch with what its paths were imported as: a path says nothing once its file has changed. */
function withImages(launch: GuestConfig, disks: readonly Disk[]): GuestConfig {
  return {
    ...launch,
    disks: launch.disks.map((config, index) => {
      const sha256 = disks[index]?.layers.find((layer) => layer.sha256 !== undefined)?.sha256
      return sha256 === undefined ? config : { ...config, sha256 }
    }),
  }
}

/**
 * Boots a stopped VM on the disks in its directory. When it fails, no process is left and the disks are as
 * they were.
 */
export async function carryOutStart(order: StartOrder, signal: AbortSignal): Promise<ProcessIdentity> {
  const dir = directoryOf(order)
  await requireDirectory(dir)
  await assertOwnFiles(dir)
  await using user = await claimVmUser(order)
  const hypervisor = await hypervisorOf(user.hypervisor)
  const disks = await hypervisor.renew(dir, signal)
  return await boot(hypervisor, { dir, disks, signal, ...whoseVm(order) }, order)
}

/**
 * Starts a guest that boots from disks which are there. On a failure no process is left; a refusal is a
 * `conflict`.
 */
export async function boot(
  hypervisor: Hypervisor,
  vm: VmLaunch,
  order: StartOrder | RestoreOrder,
  { startGuest = true } = {},
): Promise<ProcessIdentity> {
  try {
    const process = await hypervisor.launch(vm)
    try {
      if (startGuest) await hypervisor.begin(vm.dir)
      return process
    } catch (error) {
      await endProcess(process, { graceMs: 0 })
      throw error
    }
  } catch (error) {
    const { name } = order.hypervisor
    const imagesDir = join(order.dataDir, "images")
    const suspects = partsOf(order.launch, { hypervisor: name, imagesDir })
    throw blamed(error, { code: "conflict", hypervisor: name, suspects })
  }
}

/** Throws `corrupted` where a VM that does not run has lost its directory, and with it its disks. */
export async function requireDirectory(dir: string): Promise<void> {
  if (await exists(dir)) return
  throw new StillframeError(
    "corrupted",
    "the instance's files are missing on its host; bring them back from a backup, restore one of its snapshots, or delete it",
    { said: dir },
  )
}

/** Idempotent. */
export async function carryOutStop(order: StopOrder, signal: AbortSignal): Promise<null> {
  const hypervisor = await hypervisorOf(order.hypervisor)
  const vm = await hypervisor.find(identityOf(order))
  if (vm !== undefined)
    await hypervisor.stop(directoryOf(order), vm, { guestMs: order.guestMs, processMs: endGraceMs, signal })
  await endRecorded(order)
  return null
}

/** A process that its guest has taken over can take its identity off its command line. */
async function endRecorded({ recorded }: StopOrder | EndOrder): Promise<void> {
  const process = await findRecorded(recorded)
  if (process !== undefined) await endProcess(process, { graceMs: endGraceMs })
}

/** Ends the VM's process, however it is found, and removes its files. Idempotent. */
export async function carryOutEnd(order: EndOrder): Promise<null> {
  for (const running of await findVms(identityOf(order))) await endProcess(running, { graceMs: endGraceMs })
  await endRecorded(order)
  const { dataDir, instanceId, token } = order
  const made =
    order.remove === "instance"
      ? [instanceDir(dataDir, instanceId)]
      : [directoryOf(order), join(standbyDir(dataDir, instanceId), token)]
  for (const dir of made) await rm(dir, { recursive: true, force: true })
  return null
}

export function whoseVm(
  order: LaunchOrder | StartOrder | RestoreOrder,
): Pick<VmLaunch, "config" | "identity"> {
  return { config: order.launch, identity: identityOf(order) }
}

function directoryOf(order: { dataDir: string; instanceId: string; generation: number }): string {
  return generationDir(order.dataDir, order.instanceId, order.generation)
}
