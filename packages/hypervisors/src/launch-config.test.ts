import { expect, test } from "vitest"
import { checkLaunchConfig, checkPathShape, pinMachine, type LaunchConfig } from "./launch-config.ts"

const types = { q35: "pc-q35-7.2", pc: "pc-i440fx-7.2", known: ["pc-q35-6.1", "pc-q35-7.2", "pc-i440fx-7.2"] }
const config: LaunchConfig = {
  machine: "pc-q35-7.2",
  accel: "tcg",
  cpu: "qemu64",
  memoryMib: 64,
  vcpus: 1,
  kernel: "/images/kernel",
  cmdline: "console=ttyS0,115200 root=/dev/vda",
  disks: [{ path: "/images/disk.raw", format: "raw", readonly: false }],
}

test("a short machine name becomes the exact type of the binary, never an alias", () => {
  expect(pinMachine("q35", types)).toBe("pc-q35-7.2")
  expect(pinMachine("pc", types)).toBe("pc-i440fx-7.2")
  expect(pinMachine("pc-q35-6.1", types)).toBe("pc-q35-6.1")
  expect(() => pinMachine("q35,accel=kvm", types)).toThrow("not offered")
  expect(() => pinMachine("isapc", types)).toThrow("not offered")
  expect(() => pinMachine("pc-q35-99.9", types)).toThrow("exact type such as pc-q35-7.2")
})

test("a whole launch passes", () => {
  expect(() => checkLaunchConfig(config)).not.toThrow()
})

test.each<[string, Partial<LaunchConfig>]>([
  ["an alias as machine", { machine: "q35" }],
  ["options behind the machine", { machine: "pc-q35-7.2,dumpdtb=/x" }],
  ["too little memory", { memoryMib: 1 }],
  ["a fraction of memory", { memoryMib: 64.5 }],
  ["no processor", { vcpus: 0 }],
  ["a line break in cmdline", { cmdline: "a\nb" }],
  ["the host's processor without KVM", { cpu: "host" }],
  ["a processor with options", { cpu: "qemu64,+x" as "qemu64" }],
  ["a relative kernel", { kernel: "kernel" }],
  ["an unknown format", { disks: [{ path: "/d", format: "vmdk" as "raw", readonly: true }] }],
])("%s is refused", (_what, change) => {
  expect(() => checkLaunchConfig({ ...config, ...change })).toThrow(
    expect.objectContaining({ code: "invalid_request" }),
  )
})

test.each(["relative", "/a,b", "/a:b", "/a\\b", "/a\nb", "/a\0b", `/${"a".repeat(4096)}`])(
  "path %j is refused",
  (path) => {
    expect(() => checkPathShape(path)).toThrow(expect.objectContaining({ code: "invalid_request" }))
  },
)
