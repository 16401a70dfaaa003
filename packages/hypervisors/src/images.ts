import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { builtinImages } from "@stillframe/domain/images"
import type { LaunchConfig } from "./launch-config.ts"

export type BuiltinImage = Pick<LaunchConfig, "kernel" | "initrd" | "cmdline" | "memoryMib">

/**
 * The guests that come with us, with defaults for what a caller leaves out. Throws `invalid_request` for
 * another name.
 */
export function builtinImage(name: string, imagesDir: string): BuiltinImage {
  if (name === "heartbeat")
    return { kernel: join(imagesDir, "heartbeat.elf"), memoryMib: builtinImages.heartbeat.memory_mib }
  if (name === "demo") {
    return {
      kernel: join(imagesDir, "demo", "vmlinuz"),
      initrd: join(imagesDir, "demo", "initramfs.cpio.gz"),
      cmdline: "console=ttyS0 panic=1 quiet",
      memoryMib: builtinImages.demo.memory_mib,
    }
  }
  throw new StillframeError(
    "invalid_request",
    `there is no image "${name.slice(0, 63)}"; use demo or heartbeat`,
  )
}
