import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { Monitor } from "../monitor/qmp.ts"

const POLL_MS = 50
/** QEMU ends a stream after the chunk in hand, so only storage that hangs takes this long. */
const END_TIMEOUT_MS = 30_000

/** The arguments of `block-stream`: copy everything between `base` and `active` into `active`. */
export interface Merge {
  disk: number
  /** Block nodes. Without a base nothing stays below the active layer. */
  active: string
  base?: { node: string; file: string }
  bytesPerSecond: number
}

export interface MergeProgress {
  disk: number
  /** How far into the disk the merge has come. */
  bytes: number
  totalBytes: number
}

interface Job {
  id: string
  status: string
  "current-progress": number
  "total-progress": number
  error?: string
}

const JOB_PREFIX = "merge-disk"

const jobId = (disk: number): string => `${JOB_PREFIX}${disk}`

/** True for a block job of one of our merges, by its id. */
export const isMergeJob = (id: string): boolean => id.startsWith(JOB_PREFIX)

/**
 * The disks whose merge an earlier caller left under way. Those that have ended since are taken off QEMU's
 * list.
 */
export async function mergesUnderWay(monitor: Monitor): Promise<ReadonlySet<number>> {
  const jobs = (await monitor.execute<Job[]>("query-jobs")).filter(({ id }) => isMergeJob(id))
  const ended = jobs.filter(({ status }) => status === "concluded")
  for (const { id } of ended) await monitor.execute("job-dismiss", { id })
  return new Set(
    jobs.filter((job) => !ended.includes(job)).map(({ id }) => Number(id.slice(JOB_PREFIX.length))),
  )
}

/**
 * Starts a merge, or takes up the one that an earlier caller left, and waits until all is copied. QEMU then
 * waits for `finishMerge`, and the file's header still names the old chain. When the signal aborts, the merge
 * is cancelled and has ended when this throws `cancelled`.
 */
export async function copyLayers(
  monitor: Monitor,
  merge: Merge,
  { signal, onProgress }: { signal: AbortSignal; onProgress?: (progress: MergeProgress) => void },
): Promise<void> {
  const id = jobId(merge.disk)
  try {
    signal.throwIfAborted()
    await startOrTakeUp(monitor, merge)
    for (;;) {
      const job = await findJob(monitor, id)
      if (job === undefined || job.status === "concluded") throw await failure(monitor, id, job)
      onProgress?.({ disk: merge.disk, bytes: job["current-progress"], totalBytes: job["total-progress"] })
      if (job.status === "pending") return
      await delay(POLL_MS, undefined, { signal })
    }
  } catch (error) {
    if (!signal.aborted) throw error
    await cancelMerge(monitor, id)
    throw new StillframeError("cancelled", "the merge was cancelled; the disk was left as it was", {
      cause: error,
    })
  }
}

/**
 * Lets QEMU write the new chain into the active layer's header. What was copied must be in the file by then.
 */
export async function finishMerge(monitor: Monitor, disk: number): Promise<void> {
  const id = jobId(disk)
  await monitor.execute("job-finalize", { id })
  const end = performance.now() + END_TIMEOUT_MS
  for (; ; await delay(POLL_MS)) {
    const job = await findJob(monitor, id)
    if (job?.status === "concluded" && job.error === undefined) break
    if (job === undefined || job.status === "concluded") throw await failure(monitor, id, job)
    if (performance.now() > end) throw stuck(id)
  }
  await monitor.execute("job-dismiss", { id })
}

/**
 * Cancels our merges of a VM and waits until QEMU has let go of them. The disks stay whole: what was copied
 * is only there twice.
 */
export async function cancelMerges(monitor: Monitor): Promise<void> {
  for (const { id } of await monitor.execute<Job[]>("query-jobs"))
    if (isMergeJob(id)) await cancelMerge(monitor, id)
}

async function cancelMerge(monitor: Monitor, id: string): Promise<void> {
  const end = performance.now() + END_TIMEOUT_MS
  for (; ; await delay(POLL_MS)) {
    const job = await findJob(monitor, id)
    if (job === undefined) return
    await unlessRefused(monitor, job.status === "concluded" ? "job-dismiss" : "job-cancel", { id })
    if (performance.now() > end) throw stuck(id)
  }
}

async function startOrTakeUp(monitor: Monitor, merge: Merge): Promise<void> {
  const { active, base, bytesPerSecond } = merge
  const id = jobId(merge.disk)
  if ((await findJob(monitor, id)) !== undefined) {
    await unlessRefused(monitor, "block-job-set-speed", { device: id, speed: bytesPerSecond })
    return
  }
  await monitor.execute("block-stream", {
    "job-id": id,
    device: active,
    speed: bytesPerSecond,
    // Else QEMU makes up a name from how it opened the file; ours must hold in every directory with links to
    // the chain.
    ...(base && { "base-node": base.node, "backing-file": base.file }),
    "auto-finalize": false,
    // Else the outcome is gone with the event that nobody may have heard.
    "auto-dismiss": false,
  })
}

async function findJob(monitor: Monitor, id: string): Promise<Job | undefined> {
  return (await monitor.execute<Job[]>("query-jobs")).find((job) => job.id === id)
}

/** For commands that lose against the job's own progress: its next status is the answer. */
async function unlessRefused(monitor: Monitor, command: string, args: object): Promise<void> {
  try {
    await monitor.execute(command, args)
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code !== "hypervisor_failed") throw error
  }
}

async function failure(monitor: Monitor, id: string, job: Job | undefined): Promise<StillframeError> {
  if (job !== undefined) await unlessRefused(monitor, "job-dismiss", { id })
  const why = job?.error ?? "somebody cancelled it"
  const full = why.includes("No space left on device") || why.includes("Disk quota exceeded")
  return new StillframeError(
    full ? "insufficient_storage" : "hypervisor_failed",
    `QEMU ended the disk job ${id}; the disk is whole, and the merge is tried again`,
    { said: why },
  )
}

const stuck = (id: string): StillframeError =>
  new StillframeError("timeout", `QEMU does not end the disk job ${id}; look at its qemu.log and the storage`)
