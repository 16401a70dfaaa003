import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import type { Client } from "@stillframe/stillframe/demo/client"
import type { Machine } from "../machine.ts"
import { printComparisons } from "../measure.ts"
import { scratch } from "../scratch.ts"
import { startWhole } from "../stack.ts"

const blocks = 3
const roundsOfBlock = 7
const backlog = 2_000
const connections = 16
const memoryMib = 64

/**
 * From a create to its 201 for one VM, while 2,000 snapshots of another VM wait, against the same while none
 * does. Both VMs are on the same host and run all the time, so the difference is the backlog's.
 */
export async function benchBacklog(machine: Machine): Promise<void> {
  console.log(`\nsnapshot of one VM with ${backlog} of another waiting, against none waiting; ms`)
  using place = scratch("backlog")
  await using stack = await startWhole(machine, join(place.dir, "data"), {
    OPEN_CAPTURES_PER_INSTANCE: String(2 * backlog),
    CALLER_REQUESTS_PER_SECOND: "0",
  })
  const { api } = stack
  const quiet = await launch(api, "quiet")
  const [ours, theirs]: [number[], number[]] = [[], []]
  await snapshotMs(api, quiet)
  for (let block = 0; block < blocks; block++) {
    const busy = await launch(api, `busy-${block}`)
    for (let round = 0; round < roundsOfBlock; round++) theirs.push(await snapshotMs(api, quiet))
    await fill(api, busy)
    for (let round = 0; round < roundsOfBlock; round++) ours.push(await snapshotMs(api, quiet))
    await assertBacklog(api, busy)
    await api.request("DELETE", `/instances/${busy.id}`)
  }
  await api.request("DELETE", `/instances/${quiet.id}`)
  printComparisons([{ what: "create to 201", ours, theirs, target: "< 1.5" }])
  console.log(`longest: with the backlog ${longest(ours)} ms, without ${longest(theirs)} ms`)
}

function launch(api: Client, name: string): Promise<InstanceResource> {
  return api.request(
    "POST",
    "/instances",
    { name, launch: { image: "heartbeat", memory_mib: memoryMib } },
    { prefer: "wait=55" },
  )
}

async function snapshotMs(api: Client, { id }: InstanceResource): Promise<number> {
  const startedAt = performance.now()
  const snapshot = await api.request<SnapshotResource>(
    "POST",
    `/instances/${id}/snapshots`,
    { kind: "Standby" },
    { prefer: "wait=55" },
  )
  const ms = performance.now() - startedAt
  if (snapshot.status !== "ready") throw new Error(`the snapshot is ${snapshot.status} after ${ms} ms`)
  await api.request("DELETE", `/snapshots/${snapshot.id}`)
  return ms
}

async function fill(api: Client, { id }: InstanceResource): Promise<void> {
  let left = backlog
  const connection = async (): Promise<void> => {
    while (left-- > 0) await api.request("POST", `/instances/${id}/snapshots`, { kind: "Standby" })
  }
  await Promise.all(Array.from({ length: connections }, connection))
}

/** A backlog that was worked off meanwhile would have measured nothing. */
async function assertBacklog(api: Client, { id }: InstanceResource): Promise<void> {
  const query = `source_instance_id=${id}&status=queued&limit=1`
  const waiting = await api.request<SnapshotResource[]>("GET", `/snapshots?${query}`)
  if (waiting.length === 0) throw new Error("the backlog was gone before the measurement ended")
}

function longest(values: readonly number[]): number {
  return Math.round(Math.max(...values))
}
