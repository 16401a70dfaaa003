import { spawn } from "node:child_process"
import { once } from "node:events"
import type { InstanceResource } from "@stillframe/domain/instance"
import { findVms } from "@stillframe/hypervisors/process/find-vms"
import type { ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import type { TestStack } from "./test-stack.ts"

/** The process of an instance's VM, whatever runs it. */
export async function processOf(
  stack: TestStack,
  { id }: Pick<InstanceResource, "id">,
): Promise<ProcessIdentity> {
  const [vm] = await findVms(`stillframe-${stack.clusterId}-${id}`)
  if (vm === undefined) throw new Error("the VM does not run")
  return vm
}

/**
 * Runs a script as a VM's user in `cwd`, as if it had broken out there. Resolves with its output, refusals of
 * the system included.
 */
export async function tryAs(
  user: { uid: number; gid: number },
  cwd: string,
  script: string,
): Promise<string> {
  const stdio = ["ignore", "pipe", "ignore"] as const
  const child = spawn("/bin/sh", ["-c", `${script} 2>&1`], { ...user, cwd, stdio: [...stdio] })
  let said = ""
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text))
  await once(child, "close")
  return said.trim()
}
