import { spawn } from "node:child_process"
import { once } from "node:events"
import { identifyProcess, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"

/** One that was there and is not any more. */
export async function deadProcess(): Promise<ProcessIdentity> {
  const child = spawn("sleep", ["60"])
  const identity = await identifyProcess(child.pid ?? 0)
  child.kill("SIGKILL")
  await once(child, "exit")
  if (identity === undefined) throw new Error("the process ended at once")
  return identity
}
