/**
 * Members that each body may have, and since which minor version of 1.x: Firecracker refuses a body with any
 * other.
 */
const fields: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  "/actions": { action_type: 0 },
  "/boot-source": { kernel_image_path: 0, initrd_path: 0, boot_args: 0 },
  "/machine-config": {
    vcpu_count: 0,
    mem_size_mib: 0,
    smt: 0,
    cpu_template: 0,
    track_dirty_pages: 0,
    huge_pages: 7,
  },
  "/drives": {
    drive_id: 0,
    partuuid: 0,
    is_root_device: 0,
    cache_type: 0,
    is_read_only: 0,
    path_on_host: 0,
    rate_limiter: 0,
    io_engine: 0,
    socket: 0,
  },
  "/vm": { state: 0 },
  "/snapshot/create": { snapshot_type: 0, snapshot_path: 0, mem_file_path: 0 },
  "/snapshot/load": {
    snapshot_path: 0,
    mem_file_path: 0,
    mem_backend: 0,
    enable_diff_snapshots: 0,
    track_dirty_pages: 13,
    resume_vm: 0,
    network_overrides: 12,
    vsock_override: 16,
    clock_realtime: 16,
  },
}

/** The first member that this version does not know, in serde's words. */
export function unknownField(path: string, body: object, minor: number): string | undefined {
  const known = Object.entries(fields[path.startsWith("/drives/") ? "/drives" : path] ?? {})
    .filter(([, since]) => since <= minor)
    .map(([name]) => name)
  const unknown = Object.keys(body).find((name) => !known.includes(name))
  if (unknown === undefined) return undefined
  return `unknown field \`${unknown}\`, expected one of ${known.map((name) => `\`${name}\``).join(", ")}`
}
