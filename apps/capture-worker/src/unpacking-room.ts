import { stat } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { TargetState } from "@stillframe/domain/instance"
import { vmms } from "@stillframe/hypervisors/vmms"
import { rawMemoryName } from "@stillframe/storage/layout"
import { freeBytes } from "@stillframe/storage/space"
import type { Payload } from "./payload.ts"
import type { PlacedVm } from "./vm-order.ts"
import type { Worker } from "./worker.ts"

/** By instance, the bytes that what is being built may still write into this host's `DATA_DIR`. */
export type Unpacking = Map<string, number>

/**
 * Builds a VM from a payload once there is room for its memory, which hypervisors that load whole files get as one in the
 * VM's directory. Throws `insufficient_storage` before anything is written.
 */
export async function withUnpackingRoom<T>(
  { config, unpacking }: Pick<Worker, "config" | "unpacking">,
  { vm, payload, target }: { vm: PlacedVm; payload: Payload; target: TargetState },
  build: () => Promise<T>,
): Promise<T> {
  const bytes = target === "Running" ? await bytesToUnpack(vm, payload, config.dataDir) : 0
  if (bytes === 0) return build()
  const free = await freeBytes(config.dataDir)
  // What they have written already is counted twice: rather one too few than a full disk.
  const promised = [...unpacking.values()].reduce((sum, other) => sum + other, 0)
  if (free - promised - bytes < config.spaceFloorBytes)
    throw new StillframeError(
      "insufficient_storage",
      `DATA_DIR has ${free} bytes free, of which ${promised} are promised; the snapshot's memory needs ${bytes} there for ${vm.hypervisor} to load it, and ${config.spaceFloorBytes} stay free. Free some, enlarge the disk, or restore without memory with target_state Stopped`,
    )
  unpacking.set(vm.id, bytes)
  try {
    return await build()
  } finally {
    unpacking.delete(vm.id)
  }
}

async function bytesToUnpack(
  { hypervisor }: PlacedVm,
  { payloadDir, memoryFile, launch }: Payload,
  dataDir: string,
): Promise<number> {
  // QEMU reads the frames as they are.
  if (memoryFile === undefined || vmms.get(hypervisor)?.memoryName === undefined) return 0
  const linked =
    memoryFile === rawMemoryName && (await sameFileSystem(payloadDir, join(dataDir, "instances")))
  return linked ? 0 : launch.memoryMib * 1024 ** 2
}

async function sameFileSystem(one: string, other: string): Promise<boolean> {
  return (await stat(one)).dev === (await stat(other)).dev
}
