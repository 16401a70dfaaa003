import { closeSync, fstatSync, openSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { done, type Answer } from "./answer.ts"
import type { Fault } from "./faults.ts"
import type { FakeVmm, VmConfig } from "./vmm.ts"

/** Loads what a snapshot wrote and leaves the VM paused. A failure takes the half-made VM away again. */
export async function restore(
  vmm: FakeVmm,
  body: Record<string, unknown>,
  fault: Fault | undefined,
): Promise<Answer> {
  const failed = ["Error from API", "The VM could not be restored"]
  if (vmm.config !== undefined) return vmm.refused([...failed, "VM is already created"])
  const dir = String(body["source_url"]).replace(/^file:\/\//, "")
  try {
    const config = JSON.parse(readFileSync(join(dir, "config.json"), "utf8")) as VmConfig
    JSON.parse(readFileSync(join(dir, "state.json"), "utf8"))
    vmm.guest = await vmm.open(config)
    readMemory(vmm, join(dir, "memory-ranges"), config.memory.size)
    vmm.config = config
  } catch (error) {
    vmm.close()
    return vmm.refused([...failed, "Cannot restore VM", (error as Error).message])
  }
  vmm.state = "Paused"
  // As a version that knows `resume` would, had it been asked to.
  const runs = (vmm.major >= 52 && body["resume"] === true) || fault?.does === "ignore"
  if (runs) {
    vmm.guest.run()
    vmm.state = "Running"
  }
  return done
}

function readMemory(vmm: FakeVmm, path: string, bytes: number): void {
  const fd = openSync(path, "r")
  try {
    if (fstatSync(fd).size < bytes) throw new Error("failed to fill whole buffer")
    vmm.guest?.readMemory(fd)
  } finally {
    closeSync(fd)
  }
}
