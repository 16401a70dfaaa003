import { expect, test } from "vitest"
import { nodeName } from "../../disks/block-node.ts"
import type { Disk } from "../../disks/disks.ts"
import type { LaunchConfig } from "../../launch-config.ts"
import { qemuArguments } from "./command.ts"

const config: LaunchConfig = {
  machine: "pc-q35-7.2",
  accel: "tcg",
  cpu: "qemu64",
  memoryMib: 64,
  vcpus: 2,
  kernel: "/images/kernel",
  cmdline: "-incoming exec:x",
  disks: [],
}
const disk: Disk = {
  readonly: false,
  virtualSize: 4096,
  layers: [
    { file: "disk0.3.qcow2", format: "qcow2" },
    { file: "disk0.1.qcow2", format: "qcow2" },
    { file: "/images/own.raw", format: "raw" },
  ],
  sources: [],
}

test("a VM starts stopped, in a sandbox, with two monitors and no defaults", () => {
  const args = qemuArguments({ config, disks: [], identity: "stillframe-c-i" })

  expect(args).toEqual(expect.arrayContaining(["-S", "-no-user-config", "-nodefaults", "-no-reboot"]))
  expect(args[args.indexOf("-sandbox") + 1]).toBe(
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
  )
  expect(args.filter((arg) => arg === "-mon")).toHaveLength(2)
  expect(args).not.toContain("-incoming")
})

test("nothing of a caller but the command line of its kernel is an argument of its own", () => {
  const args = qemuArguments({ config, disks: [], identity: "stillframe-c-i" })

  expect(args[args.indexOf("-kernel") + 1]).toBe("kernel")
  expect(args[args.indexOf("-append") + 1]).toBe("-incoming exec:x")
})

test("a disk is spelled out to its end, so that no header decides what is opened", () => {
  const args = qemuArguments({ config, disks: [disk], identity: "stillframe-c-i" })

  expect(JSON.parse(args[args.indexOf("-blockdev") + 1] ?? "")).toEqual({
    driver: "qcow2",
    "node-name": "disk0-3",
    "read-only": false,
    file: { driver: "file", filename: "disk0.3.qcow2" },
    backing: {
      driver: "qcow2",
      "node-name": "disk0-1",
      "read-only": true,
      file: { driver: "file", filename: "disk0.1.qcow2" },
      backing: {
        driver: "raw",
        "node-name": "disk0-base-1",
        "read-only": true,
        file: { driver: "file", filename: "/images/own.raw" },
      },
    },
  })
})

test("a qcow2 at the end of a chain is told to have no backing file", () => {
  const alone = { ...disk, layers: [{ file: "disk0.base", format: "qcow2" as const }] }

  const args = qemuArguments({ config, disks: [alone], identity: "stillframe-c-i" })

  expect(JSON.parse(args[args.indexOf("-blockdev") + 1] ?? "")).toMatchObject({ backing: null })
})

test("a microvm has no PCI devices", () => {
  const args = qemuArguments({
    config: { ...config, machine: "microvm" },
    disks: [disk],
    identity: "stillframe-c-i",
  })

  expect(args.join(" ")).not.toMatch(/pci|vmgenid/)
})

test("an identity that is more than a name is refused", () => {
  expect(() => qemuArguments({ config, disks: [], identity: "a,process=b" })).toThrow("cannot name")
})

test("an overlay's node has its number, a caller's file its height", () => {
  expect(nodeName(0, disk.layers)).toBe("disk0-3")
  expect(nodeName(0, disk.layers.slice(2))).toBe("disk0-base-1")
  expect(nodeName(1, disk.layers)).toBe("disk1-base-3")
})
