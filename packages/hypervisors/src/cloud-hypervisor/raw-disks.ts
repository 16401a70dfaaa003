import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { openRegular } from "@stillframe/storage/open-regular"
import type { Disk } from "../disks/disks.ts"
import { diskFile } from "./vm-config.ts"

const signatureBytes = 8
const vhdFooterBytes = 512
const headSignatures = ["QFI\u{fb}", "vhdxfile"]
const footSignature = "conectix"

/**
 * Throws `not_supported` for a disk that looks like anything but raw. A VMM that guesses formats would
 * believe what a guest wrote into its own first sector, and open the files that it names there.
 */
export async function assertLookRaw(dir: string, disks: readonly Disk[]): Promise<void> {
  for (const disk of disks) {
    const name = diskFile(disk)
    if (await looksRaw(join(dir, name))) continue
    throw new StillframeError(
      "not_supported",
      `${name} begins like an image of another format, which this cloud-hypervisor would take it for; use v51 or later`,
    )
  }
}

async function looksRaw(path: string): Promise<boolean> {
  const file = await openRegular(path)
  try {
    const { size } = await file.stat()
    const at = async (position: number): Promise<string> => {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(signatureBytes), 0, signatureBytes, position)
      return buffer.toString("latin1", 0, bytesRead)
    }
    const head = await at(0)
    if (headSignatures.some((signature) => head.startsWith(signature))) return false
    return size < vhdFooterBytes || (await at(size - vhdFooterBytes)) !== footSignature
  } finally {
    await file.close()
  }
}
