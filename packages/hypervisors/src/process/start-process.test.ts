import { expect, test } from "vitest"
import { cleanWords } from "./start-process.ts"

test.each([
  ["qemu-system-x86_64: unsupported machine type", "unsupported machine type"],
  ["qemu: invalid kernel header", "invalid kernel header"],
  [
    `qemu-system-x86_64: -blockdev {"driver":"raw","file":{"driver":"file","filename":"disk0.base"}}: Could not open 'disk0.base'`,
    "Could not open 'disk0.base'",
  ],
  ["qemu-system-x86_64: -incoming defer: no; qemu-system-x86_64: -smp 300: too many", "no; too many"],
  ["cannot load /data/instances/a/1/kernel", "cannot load kernel"],
])("words without the binary, its command line and its directory: %s", (said, clean) => {
  expect(cleanWords(said, "/data/instances/a/1")).toBe(clean)
})
