import { expect, test } from "vitest"
import type { Disk } from "../disks/disks.ts"
import { rewriteConfig } from "./rewrite-config.ts"

const guest = { memoryMib: 64, vcpus: 1, disks: [] }
const saved = {
  cpus: { boot_vcpus: 1, max_vcpus: 1 },
  memory: { size: 64 * 1024 ** 2, zones: null },
  disks: [{ path: "/elsewhere/a", readonly: false, id: "_disk0", image_type: "Raw" }],
  serial: { mode: "File", file: "/elsewhere/serial" },
  console: { mode: "Socket", socket: "/elsewhere/console" },
  vsock: { cid: 3, socket: "/elsewhere/vsock" },
  net: [{ tap: "tap7", mac: "2e:00:00:00:00:01", id: "_net1" }],
  fs: null,
  payload: { kernel: "kernel" },
}
const disk = (file: string, readonly = false): Disk => ({
  readonly,
  virtualSize: 1,
  layers: [{ file, format: "raw" }],
  sources: [],
})

test("a fork gets names of its own and keeps all else", () => {
  expect(rewriteConfig(saved, guest, [disk("disk0.raw")])).toEqual({
    ...saved,
    disks: [{ path: "disk0.raw", readonly: false, id: "_disk0", image_type: "Raw" }],
    serial: { mode: "File", file: "serial.log" },
    console: { mode: "Off" },
    vsock: { cid: 3, socket: "vsock.sock" },
    net: [{ tap: null, mac: "2e:00:00:00:00:01", id: "_net1" }],
  })
})

test.each([
  ["fs", [{ tag: "share", socket: "/elsewhere/fs" }]],
  ["devices", [{ path: "/sys/bus/pci/devices/0000:00:01.0" }]],
  ["memory in files", undefined],
])("a VM that has %s of its host has no fork", (name, value) => {
  const memory = { ...saved.memory, zones: [{ id: "a", size: 1, file: "/elsewhere/zone" }] }
  const shared = value === undefined ? { ...saved, memory } : { ...saved, [name]: value }

  expect(() => rewriteConfig(shared, guest, [disk("disk0.raw")])).toThrow(name)
})

test("memory, processors and disks are those that were saved", () => {
  const disks = [disk("disk0.raw")]

  expect(() => rewriteConfig(saved, { ...guest, memoryMib: 128 }, disks)).toThrow("64 MiB of memory")
  expect(() => rewriteConfig(saved, { ...guest, vcpus: 2 }, disks)).toThrow("has 1 processor and")
  expect(() => rewriteConfig(saved, guest, [])).toThrow("has 1 disk and")
  expect(() => rewriteConfig(saved, guest, [disk("disk0.raw", true)])).toThrow("a disk 0 that is writable")
})
