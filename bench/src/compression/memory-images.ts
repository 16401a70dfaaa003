import { readFileSync } from "node:fs"
import { join } from "node:path"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { qemuFiles } from "@stillframe/hypervisors/qemu/process/command"
import { installImages } from "@stillframe/stillframe/stack/install-images"
import { saveByHand, startGuest, type Guest } from "../guest.ts"
import type { Machine } from "../machine.ts"
import { writeSyntheticImage } from "./synthetic-image.ts"

/** A file of memory to be compressed. */
export interface MemoryImage {
  readonly what: string
  readonly path: string
  /** Whether it is a booted guest's RAM as it is, most of which is zeros. */
  readonly isRawMemory: boolean
}

const memoryMib = 512
const memoryBytes = memoryMib * 2 ** 20
const dumpMsMax = 60_000

/**
 * The synthetic image, and a freshly booted demo guest's memory twice: raw, every byte of it written as
 * Firecracker and Cloud Hypervisor write it, and as QEMU saves it, where pages of zeros are only named.
 */
export async function writeMemoryImages(machine: Machine, dir: string): Promise<MemoryImage[]> {
  const synthetic = { what: "synthetic, 512 MiB", path: join(dir, "synthetic"), isRawMemory: false }
  writeSyntheticImage(synthetic.path, memoryBytes)
  const raw = { what: "raw RAM of a booted guest, 512 MiB", path: join(dir, "guest-raw"), isRawMemory: true }
  const saved = {
    what: "QEMU's memory file of the same guest",
    path: join(dir, "guest-saved"),
    isRawMemory: false,
  }
  const imagesDir = join(dir, "images")
  await installImages(imagesDir)
  await using guest = await startGuest(machine, { dir: join(dir, "guest"), imagesDir, memoryMib, disks: [] })
  await saveByHand(guest, saved.path)
  await dumpMemory(guest, raw.path)
  return [synthetic, raw, saved]
}

/** Leaves the guest stopped. */
async function dumpMemory(guest: Guest, filename: string): Promise<void> {
  await withMonitor(guest.dir, qemuFiles.command, async (monitor) => {
    await monitor.execute("stop")
    await monitor.execute("pmemsave", { val: 0, size: memoryBytes, filename }, dumpMsMax)
  })
}

/** Share of the file's frames of 256 KiB that hold nothing but zeros, 0 to 1. */
export function zeroFrameShare(path: string): number {
  const bytes = readFileSync(path)
  const zeros = Buffer.alloc(256 * 1024)
  let count = 0
  for (let at = 0; at < bytes.length; at += zeros.length) {
    if (bytes.compare(zeros, 0, undefined, at, Math.min(at + zeros.length, bytes.length)) === 0) count++
  }
  return count / Math.ceil(bytes.length / zeros.length)
}
