import { copyFile, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { runProgram } from "@stillframe/hypervisors/process/run-program"
import { afterAll, beforeAll, expect, test } from "vitest"
import { qemu } from "../hypervisors/test-vm.ts"
import { testStack, type TestStack } from "./test-stack.ts"

let stack: TestStack
beforeAll(async () => {
  stack = await testStack()
  await stack.startCaptureWorker()
  await writeFile(join(stack.imagesDir, "text"), "no kernel and no disk")
  await copyFile(process.execPath, join(stack.imagesDir, "program"))
  const cut = join(stack.imagesDir, "cut.qcow2")
  const { signal } = new AbortController()
  await runProgram(qemu.qemuImg, ["create", "-q", "-f", "qcow2", cut, "1M"], { signal })
  await truncate(cut, 100_000)
})
afterAll(() => stack[Symbol.asyncDispose]())

const inImages = (name: string): string => join(stack.imagesDir, name)

test.each<[string, () => object, RegExp]>([
  [
    "a machine that QEMU does not know",
    () => ({ image: "heartbeat", machine: "pc-q35-99.9" }),
    /machine "pc-q35-99\.9"/,
  ],
  ["a kernel that is text", () => ({ kernel: inImages("text"), memory_mib: 64 }), /is not a kernel/],
  ["a kernel that QEMU cannot boot", () => ({ kernel: inImages("program"), memory_mib: 64 }), /PVH/],
  [
    "an initial RAM disk that does not fit",
    () => ({ kernel: inImages("heartbeat.elf"), initrd: inImages("program"), memory_mib: 64 }),
    /initial RAM disk/,
  ],
  [
    "a disk that is cut off",
    () => ({ disks: [{ path: inImages("cut.qcow2"), format: "qcow2" }], memory_mib: 64 }),
    /cut off/,
  ],
])("%s is the caller's mistake, told in a sentence without a command line", async (_what, launch, reason) => {
  const { status, body } = await stack.ask("POST", "/instances", { body: { name: "vm", launch: launch() } })

  expect([status, body]).toEqual([400, { code: "invalid_request", message: expect.stringMatching(reason) }])
  expect(body.message).not.toMatch(/qemu-system|-blockdev|-kernel|instances\/[a-z0-9]{24}|status \d/)
  expect((await stack.ask("GET", "/instances")).body).toEqual([])
})
