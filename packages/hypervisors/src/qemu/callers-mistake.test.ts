import { StillframeError } from "@stillframe/domain/errors"
import { expect, test } from "vitest"
import { blamedOnCaller } from "./callers-mistake.ts"

// As QEMU 7.2 and 10.0 print it.
test.each([
  ["unsupported machine type; Use -machine help to list supported machines", "launch.machine"],
  [
    "vmgenid requires DMA write support in fw_cfg, which this machine type does not provide",
    "launch.machine",
  ],
  ["Invalid SMP CPUs 256. The max CPUs supported by machine 'pc-i440fx-7.2' is 255", "launch.vcpus"],
  ["Address space limit 0xffffffffff < 0x4017fffffff phys-bits too low (40)", "launch.memory_mib"],
  ["PCI: no slot/function available for virtio-blk-pci, all in use or reserved", "fewer"],
  ["Error loading uncompressed kernel without PVH ELF Note", "PVH"],
  ["invalid kernel header", "bzImage"],
  ["Error while loading elf kernel", "bzImage"],
  ["initrd is too large, cannot support.(max: 66945023, need 83886080)", "launch.memory_mib"],
  ["Could not open 'disk0.base': Permission denied", "readable"],
  ["Unsupported qcow2 feature(s): Unknown incompatible feature: 40", "qemu-img convert"],
])("QEMU's %j is the caller's to mend", (said, remedy) => {
  const failed = new StillframeError("hypervisor_failed", `QEMU ended with status 1: ${said}`)

  const told = blamedOnCaller(failed)

  expect(told).toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining(remedy),
    cause: failed,
  })
  expect((told as Error).message).not.toContain("status 1")
})

test("a failure that is not the caller's stays what it is", () => {
  const crashed = new StillframeError("hypervisor_failed", "QEMU ended with SIGSEGV: it said nothing")
  const full = new StillframeError("insufficient_resources", "the host has no memory for this VM")

  expect(blamedOnCaller(crashed)).toBe(crashed)
  expect(blamedOnCaller(full)).toBe(full)
})
