import { StillframeError } from "@stillframe/domain/errors"
import { expect, test } from "vitest"
import { GuestRefusal } from "../../refusal.ts"
import { knownMistake } from "./callers-mistake.ts"

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
  ["error reading initrd initrd: Failed to open file: Permission denied", "readable"],
  ["error reading initrd initrd: Is a directory", "cannot read the initial RAM disk"],
  ["Could not open 'disk0.base': Permission denied", "readable"],
  ["Unsupported qcow2 feature(s): Unknown incompatible feature: 40", "qemu-img convert"],
])("QEMU's %j is the caller's to mend", (said, remedy) => {
  const refused = new GuestRefusal("QEMU ended with status 1 before the VM ran", said)

  const told = knownMistake(refused)

  expect(told).toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining(remedy),
    said,
    cause: refused,
  })
  expect((told as Error).message).not.toContain("status 1")
})

test("a failure that is not the caller's, and a refusal in other words, stay what they are", () => {
  const crashed = new StillframeError("hypervisor_failed", "QEMU was ended by SIGSEGV before the VM ran")
  const full = new StillframeError("insufficient_resources", "the host has no memory for this VM")
  const unknown = new GuestRefusal("QEMU ended with status 1 before the VM ran", "bad thing 17")

  for (const error of [crashed, full, unknown]) expect(knownMistake(error)).toBe(error)
})
