import { StillframeError } from "@stillframe/domain/errors"
import { overlayNumber, type DiskLayer } from "./disks.ts"

/**
 * The block node of a chain's first layer. Our overlays are named by their number, what lies below them by
 * its height.
 */
export function nodeName(disk: number, layers: readonly DiskLayer[]): string {
  const number = overlayNumber(disk, layers[0]?.file ?? "")
  return number === undefined ? `disk${disk}-base-${layers.length}` : `disk${disk}-${number}`
}

/**
 * A chain as QEMU's programs are told of it; relative names are of their working directory. Every layer is
 * spelled out, so that QEMU opens these files and never a file that an image's header names.
 */
export function blockNode(disk: number, layers: readonly DiskLayer[], readonly: boolean): object {
  const [top, ...below] = layers
  if (top === undefined)
    throw new StillframeError("internal_error", `disk ${disk} has a chain without an end`)
  return {
    driver: top.format,
    "node-name": nodeName(disk, layers),
    "read-only": readonly,
    file: { driver: "file", filename: top.file },
    ...(top.format === "qcow2" && { backing: below.length === 0 ? null : blockNode(disk, below, true) }),
  }
}
