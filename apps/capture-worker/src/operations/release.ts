import type { InstanceRow } from "@stillframe/db/instances/instances"
import { createId } from "@stillframe/domain/ids"
import { attachedVms } from "@stillframe/hypervisors/hypervisor-of"
import { instanceDir } from "@stillframe/storage/layout"
import { hostHypervisor } from "../host/host-hypervisor.ts"
import { takeOver } from "../pause/takeover.ts"
import type { Worker } from "../worker.ts"
import { attachedInstance } from "./attached-instance.ts"
import { pauseExpectedMs } from "./vm-order.ts"

/**
 * Makes sure that a VM that someone else started runs on its own files only, or has left all that it wrote in
 * them; `forget` removes what we have of it. Nothing to do for a VM of ours. Throws `conflict` and the like
 * with the reason where its owner has to decide.
 */
export async function release(
  worker: Worker,
  instance: InstanceRow,
  { forget }: { forget: boolean },
): Promise<void> {
  const { captors, clusterId, config } = worker
  const vm = attachedInstance(instance)
  if (vm === undefined) return
  // Mostly there is nothing to do, and no process to be started for it.
  const home = instanceDir(config.dataDir, instance.id)
  if (!forget && !(await (await attachedVms()).usesOverlays(home))) return
  await captors.order(
    {
      kind: "release",
      clusterId,
      dataDir: config.dataDir,
      instanceId: instance.id,
      generation: instance.generation,
      token: createId(),
      hypervisor: hostHypervisor(worker, instance.hypervisor).tools,
      vm,
      pauseExpectedMs: pauseExpectedMs(instance.memory_mib),
      pauseLimitMs: config.pauseLimitMs,
      forget,
    },
    {
      signal: new AbortController().signal,
      onLost: async () => {
        await takeOver(config.dataDir, instance.id)
      },
    },
  )
}
