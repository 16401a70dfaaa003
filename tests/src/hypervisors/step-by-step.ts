import { flushCompileCache } from "node:module"
import { createInterface } from "node:readline"
import type { AttachedVm } from "@stillframe/hypervisors/attached"
import { captureAttached } from "@stillframe/hypervisors/qemu/attached/capture"
import { captureOptions } from "./stranger-options.ts"

/**
 * A captor for a test to kill: captures an attached VM, says each step that it has taken, and goes on when it
 * gets a line.
 */
const [root = "", vm = "", dir = ""] = process.argv.slice(2)
// A kill leaves no time to write it.
flushCompileCache()
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
await captureAttached({
  ...captureOptions({ root }, JSON.parse(vm) as AttachedVm, dir),
  onStep: async (step) => {
    process.stdout.write(`${step}\n`)
    await lines.next()
  },
})
