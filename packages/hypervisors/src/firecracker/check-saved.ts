import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { counted } from "@stillframe/domain/text/counted"
import { openRegular } from "@stillframe/storage/open-regular"
import type { Disk } from "../disks/disks.ts"
import { fileSize } from "../files/file-size.ts"
import { crc64 } from "./crc64.ts"
import { savedNames } from "./files.ts"
import { driveFile } from "./requests.ts"

const mib = 1024 ** 2
/** Firecracker itself reads no more of a state file. */
const stateBytesMax = 10_000_000
const checksumBytes = 8
const sectorBytes = 512

/**
 * Makes sure that the state file ends in its own checksum and that the memory file has the guest's size.
 * Firecracker gives that file its size before it writes, so the size tells a file of another guest, not one
 * that was cut short. Throws `hypervisor_failed` with what is wrong.
 */
export async function checkSaved(place: string, memoryMib: number): Promise<void> {
  const wrong = (await wrongState(place)) ?? (await wrongMemory(place, memoryMib))
  if (wrong !== undefined) throw new StillframeError("hypervisor_failed", `${wrong}; take the snapshot again`)
}

/**
 * Makes sure that each disk in a VM's directory has its size: Firecracker takes the size that it finds, and
 * says nothing. Throws `hypervisor_failed` with the first that has another.
 */
export async function checkDisks(dir: string, disks: readonly Disk[]): Promise<void> {
  for (const disk of disks) {
    const file = driveFile(disk)
    const bytes = await fileSize(join(dir, file))
    // The last sector of a file of the user's need not be whole.
    if (bytes !== undefined && Math.ceil(bytes / sectorBytes) * sectorBytes === disk.virtualSize) continue
    const wrong =
      bytes === undefined
        ? "is missing"
        : `has ${counted(bytes, "byte")} where the VM's disk has ${disk.virtualSize}`
    throw new StillframeError("hypervisor_failed", `${file} ${wrong}; restore another snapshot`)
  }
}

async function wrongState(place: string): Promise<string | undefined> {
  const path = join(place, savedNames.state)
  const bytes = await fileSize(path)
  if (bytes === undefined) return `${savedNames.state} is missing`
  if (bytes > stateBytesMax)
    return `${savedNames.state} has ${counted(bytes, "byte")}, more than Firecracker reads`
  await using state = await openRegular(path)
  const content = await state.readFile()
  const checksum = content.subarray(-checksumBytes)
  // The checksum of zeros is zero, and zeros are what a file system leaves of a file that never reached its
  // disk.
  const whole = content.length > checksumBytes && checksum.some((byte) => byte !== 0) && crc64(content) === 0n
  return whole ? undefined : `${savedNames.state} does not end in its checksum`
}

async function wrongMemory(place: string, memoryMib: number): Promise<string | undefined> {
  const bytes = await fileSize(join(place, savedNames.memory))
  if (bytes === undefined) return `${savedNames.memory} is missing`
  return bytes === memoryMib * mib
    ? undefined
    : `${savedNames.memory} has ${counted(bytes, "byte")} where the guest has ${memoryMib} MiB`
}
