import { StillframeError } from "@stillframe/domain/errors"
import type { Disk } from "../disks/disks.ts"
import type { GuestConfig } from "../launch-config.ts"
import { firecrackerFiles, savedNames } from "./files.ts"
import { assertKnows, type FirecrackerVersion } from "./version.ts"

/** One request of Firecracker's API, as its Swagger description has it. */
export interface FirecrackerRequest {
  readonly method: "GET" | "PUT" | "PATCH"
  readonly path: string
  readonly body?: object
}

export const describeInstance: FirecrackerRequest = { method: "GET", path: "/" }
export const describeConfig: FirecrackerRequest = { method: "GET", path: "/vm/config" }
export const instanceStart = action("InstanceStart")
export const sendCtrlAltDel = action("SendCtrlAltDel")

const vcpusMax = 32

/**
 * All that makes a VM before it starts, in order. Throws `not_supported` for what Firecracker has no word
 * for.
 */
export function configure(config: GuestConfig, disks: readonly Disk[]): FirecrackerRequest[] {
  if (config.kernel === undefined)
    throw unsupported("Firecracker has no firmware to boot a disk with; give a kernel")
  if (config.vcpus > vcpusMax) throw unsupported(`Firecracker has at most ${vcpusMax} vCPUs`)
  return [
    put("/machine-config", { vcpu_count: config.vcpus, mem_size_mib: config.memoryMib }),
    put("/boot-source", {
      kernel_image_path: firecrackerFiles.kernel,
      ...(config.initrd !== undefined && { initrd_path: firecrackerFiles.initrd }),
      ...(config.cmdline !== undefined && { boot_args: config.cmdline }),
    }),
    ...disks.map((disk, index) => drive(`disk${index}`, disk)),
  ]
}

export const setState = (state: "Paused" | "Resumed"): FirecrackerRequest => ({
  method: "PATCH",
  path: "/vm",
  body: { state },
})

/** `place`: a directory, absolute or relative to the VM's. */
export const createSnapshot = (place: string): FirecrackerRequest =>
  put("/snapshot/create", {
    snapshot_type: "Full",
    snapshot_path: `${place}/${savedNames.state}`,
    mem_file_path: `${place}/${savedNames.memory}`,
  })

/** Host resources of a restored VM in the place of the captured one's. */
export interface LoadOverrides {
  readonly network?: readonly { readonly iface_id: string; readonly host_dev_name: string }[]
  readonly vsock?: { readonly uds_path: string }
}

/**
 * Loads what lies in `place`, and leaves the VM paused. Throws `not_supported` where this version has no such
 * override.
 */
export function loadSnapshot(
  version: FirecrackerVersion,
  place: string,
  { network, vsock }: LoadOverrides = {},
): FirecrackerRequest {
  if (network !== undefined) assertKnows(version, "network_overrides")
  if (vsock !== undefined) assertKnows(version, "vsock_override")
  return put("/snapshot/load", {
    snapshot_path: `${place}/${savedNames.state}`,
    mem_backend: { backend_type: "File", backend_path: `${place}/${savedNames.memory}` },
    resume_vm: false,
    ...(network !== undefined && { network_overrides: network }),
    ...(vsock !== undefined && { vsock_override: vsock }),
  })
}

/** The one file of a disk that Firecracker can open. Throws `not_supported`. */
export function driveFile({ layers }: Disk): string {
  const [file] = layers
  if (file === undefined || layers.length > 1 || file.format !== "raw")
    throw unsupported("Firecracker opens single raw files only; convert the disk to raw")
  if (file.file.includes("/"))
    throw unsupported(
      "a disk of Firecracker must lie in the VM's directory, or a fork could not have its own",
    )
  return file.file
}

function drive(id: string, disk: Disk): FirecrackerRequest {
  return put(`/drives/${id}`, {
    drive_id: id,
    // The kernel's command line says what is the root.
    is_root_device: false,
    path_on_host: driveFile(disk),
    is_read_only: disk.readonly,
    // Without it a guest's flush reaches the host's page cache only.
    cache_type: "Writeback",
  })
}

function action(type: "InstanceStart" | "SendCtrlAltDel"): FirecrackerRequest {
  return put("/actions", { action_type: type })
}

function put(path: string, body: object): FirecrackerRequest {
  return { method: "PUT", path, body }
}

const unsupported = (message: string): StillframeError => new StillframeError("not_supported", message)
