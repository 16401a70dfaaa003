import { StillframeError } from "@stillframe/domain/errors"
import type { VmmLaunch } from "../file-vmm/vmm.ts"
import type { GuestConfig } from "../launch-config.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import { call, deadlineMs, vmState, type InstanceInfo } from "./api.ts"
import { configure, describeInstance, instanceStart, setState } from "./requests.ts"
import { startFirecracker } from "./start.ts"

const configureTimeoutMs = 15_000

/** A process with a VM that is configured and not started. Throws `not_supported` before there is one. */
export async function launchFirecracker(options: VmmLaunch): Promise<ProcessIdentity> {
  const requests = configure(options.config, options.disks)
  const { identity } = await startFirecracker(options, async () => {
    for (const request of requests) await call(options.dir, request, configureTimeoutMs)
  })
  return identity
}

/** Boots a VM that has not started, lets go on one that is paused, and reads back that it runs. */
export async function beginGuest(dir: string, config: GuestConfig): Promise<void> {
  const withinMs = deadlineMs(config)
  const { state } = await call<InstanceInfo>(dir, describeInstance, withinMs)
  if (state === "Running") return
  await call(dir, state === "Paused" ? setState("Resumed") : instanceStart, withinMs)
  const now = await vmState(dir, withinMs)
  if (now !== "running")
    throw new StillframeError(
      "hypervisor_failed",
      `the VM is ${now} after it was started; stop it and try again`,
    )
}
