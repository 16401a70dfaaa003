import { uptime } from "node:os"
import { join } from "node:path"
import { writePauseRecord, type PauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import type { InstanceResource } from "@stillframe/domain/instance"
import { deadProcess } from "./dead-process.ts"
import type { TestStack } from "./test-stack.ts"

/**
 * What a captor that died in the pause of a VM left beside it. Resolves with the directory that it lies in.
 */
export async function leavePause(
  { dataDir, clusterId }: TestStack,
  { id: instanceId }: InstanceResource,
  left: Pick<PauseRecord, "hypervisor" | "token">,
): Promise<string> {
  const home = join(dataDir, "instances", instanceId)
  const until = uptime() + 60
  await writePauseRecord(home, {
    clusterId,
    instanceId,
    generation: 1,
    snapshotId: "s",
    captor: await deadProcess(),
    wasRunning: true,
    deadlineUptime: until,
    limitUptime: until,
    ...left,
  })
  return home
}
