import { flushCompileCache } from "node:module"
import { capture, type Ground, type TestVm } from "./test-vm.ts"

/**
 * A captor for a test to kill: captures a VM live, says when it has come to the step it was given, and stays
 * there.
 */
const [root = "", vm = "", last = ""] = process.argv.slice(2)
// A kill leaves no time to write it.
flushCompileCache()
const reach = (step: string): void => {
  if (step !== last) return
  process.stdout.write(`${step}\n`)
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
}
await capture({ root } as Ground, JSON.parse(vm) as TestVm, "memory", {
  mode: "live",
  onPaused: () => reach("paused"),
  afterResume: () => reach("resumed"),
})
