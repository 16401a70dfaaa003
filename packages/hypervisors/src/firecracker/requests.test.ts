import { expect, test } from "vitest"
import { configure } from "./requests.ts"

const config = { memoryMib: 128, vcpus: 2, kernel: "/images/kernel", disks: [] }
const layer = { file: "disk0.raw", format: "raw" } as const
const disk = { readonly: true, virtualSize: 4096, layers: [layer], sources: [] }

test("a VM's kernel and disks are named relative to its directory, so that a fork is another directory", () => {
  const requests = configure({ ...config, initrd: "/images/initrd", cmdline: "quiet" }, [disk])

  expect(requests.map(({ path, body }) => [path, body])).toEqual([
    ["/machine-config", { vcpu_count: 2, mem_size_mib: 128 }],
    ["/boot-source", { kernel_image_path: "kernel", initrd_path: "initrd", boot_args: "quiet" }],
    [
      "/drives/disk0",
      {
        drive_id: "disk0",
        is_root_device: false,
        path_on_host: "disk0.raw",
        is_read_only: true,
        cache_type: "Writeback",
      },
    ],
  ])
})

test.each([
  ["a disk elsewhere", [{ ...disk, layers: [{ ...layer, file: "/data/disk.raw" }] }]],
  ["a disk of two layers", [{ ...disk, layers: [layer, layer] }]],
  ["a qcow2 disk", [{ ...disk, layers: [{ ...layer, format: "qcow2" as const }] }]],
])("%s is not supported", (_, disks) => {
  expect(() => configure(config, disks)).toThrow(expect.objectContaining({ code: "not_supported" }))
})
