import { StillframeError } from "@stillframe/domain/errors"
import { GuestRefusal, refusedGuest } from "@stillframe/hypervisors/refusal"
import fc from "fast-check"
import { expect, test } from "vitest"
import { blamed, partsOf, suspectsOf } from "./blame.ts"

const given = { code: "invalid_request", hypervisor: "qemu", suspects: ["launch.kernel"] } as const

test("the suspects of a launch are the members that its caller chose", () => {
  expect(suspectsOf({ image: "demo", memory_mib: 256, vcpus: 1 }, "qemu")).toEqual([])
  expect(suspectsOf({ image: "demo", memory_mib: 512, vcpus: 2 }, "qemu")).toEqual([
    "launch.memory_mib",
    "launch.vcpus",
  ])
  expect(suspectsOf({ kernel: "/k", cmdline: "quiet", disks: [], memory_mib: 64, vcpus: 1 }, "qemu")).toEqual(
    ["launch.kernel", "launch.cmdline", "launch.memory_mib"],
  )
  expect(suspectsOf({ image: "demo", memory_mib: 256, vcpus: 1 }, "firecracker")).toEqual(["image"])
  expect(suspectsOf({ image: "demo", machine: "pc-q35-2.4", memory_mib: 256, vcpus: 1 }, "qemu")).toEqual([
    "launch.machine",
  ])
})

test("of a guest that exists, a built-in image's own files are no suspects on QEMU, which boots them", () => {
  const disk = { path: "/d", format: "raw", readonly: false } as const
  const onQemu = { hypervisor: "qemu", imagesDir: "/images" } as const
  const heartbeat = { memoryMib: 64, vcpus: 1, kernel: "/images/heartbeat.elf" }

  expect(partsOf({ ...heartbeat, disks: [] }, onQemu)).toEqual([])
  expect(partsOf({ ...heartbeat, disks: [disk] }, onQemu)).toEqual(["disks"])
  expect(partsOf({ ...heartbeat, disks: [] }, { ...onQemu, hypervisor: "firecracker" })).toEqual(["kernel"])
  expect(partsOf({ ...heartbeat, kernel: "/own", initrd: "/i", disks: [] }, onQemu)).toEqual([
    "kernel",
    "initrd",
  ])
})

test("whatever a hypervisor says, a refused guest is its caller's to mend, in words that are ours", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 8 }), (said) => {
      const refused = new GuestRefusal("QEMU ended with status 1", said)

      const told = blamed(refused, given) as StillframeError

      expect(told).toMatchObject({ code: "invalid_request", said, cause: refused })
      expect(told.message).toContain('"launch.kernel"')
      expect(told.message).not.toContain(said)
    }),
  )
})

test("a refusal of what is all ours, and any other failure, stay what they are", () => {
  const refused = new GuestRefusal("QEMU ended with status 1", "bad thing 17")
  const crashed = new StillframeError("hypervisor_failed", "QEMU was ended by SIGSEGV")

  expect(blamed(refused, { ...given, suspects: [] })).toBe(refused)
  expect(blamed(crashed, given)).toBe(crashed)
})

test.each([
  "Could not access KVM kernel module: Permission denied",
  "Kvm error: Error creating KVM object: Permission denied (os error 13)",
  'failed to find romfile "efi-virtio.rom"',
  "Too many open files (os error 24)",
])("the host's own fault is not blamed on a caller: %s", (said) => {
  const failed = refusedGuest("QEMU ended with status 1", said)

  expect(failed.code).toBe("hypervisor_failed")
  expect(blamed(failed, given)).toBe(failed)
})
