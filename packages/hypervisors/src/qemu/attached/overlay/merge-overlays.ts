import { stat } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { Monitor } from "../../monitor/qmp.ts"
import { ensureRunning, type VmStatus } from "../../monitor/resume.ts"
import {
  readOverlayRecord,
  removeOverlayRecord,
  unlinkDurably,
  writeOverlayRecord,
  type OverlayRecord,
  type RecordedOverlay,
} from "./overlay-record.ts"

/** The steps of leading a VM to overlays and back, in this order. */
export type OverlayStep =
  | "staged"
  | "frozen"
  | "copied"
  | "committing"
  | "ready"
  | "stopped"
  | "pivoted"
  | "unlinked"

export interface MergeHooks {
  /**
   * Right before the second stop, as `beforePause` was before the first. Throws to leave the VM on its
   * overlays for now.
   */
  beforeSecondPause?: (vm: { wasRunning: boolean }) => void | Promise<void>
  /**
   * The VM is as it was before the second stop, after a failure as well. Not called where it could not be
   * resumed.
   */
  afterSecondPause?: () => void | Promise<void>
  /** For logs, and for tests that stop the work half-way. */
  onStep?: (step: OverlayStep) => void | Promise<void>
}

interface BlockJob {
  device: string
  len: number
  offset: number
  ready: boolean
}

const READY_POLL_MS = 50
const PIVOT_POLL_MS = 1
const PIVOT_TIMEOUT_MS = 5000
/**
 * Bytes that are still to be copied lengthen the second stop. A guest that writes all the time gets a longer
 * one with each second.
 */
const REMAINING_BYTES_PER_S = 4 * 1024 * 1024

/**
 * Leads an attached VM back from the overlays of an earlier capture to its own files, from wherever that
 * capture was broken off. Does nothing where there is no record. Resolves with the milliseconds for which the
 * VM stood still. Throws as `mergeOverlays` does.
 */
export async function settleOverlays(monitor: Monitor, home: string, hooks: MergeHooks): Promise<number> {
  const record = await readOverlayRecord(home)
  return record === undefined ? 0 : await mergeOverlays(monitor, { ...hooks, home, record })
}

/**
 * Removes the overlays that the VM does not use any more. To be called before a broken capture's VM is
 * resumed: an overlay that outlives its merge would be older than the disk as soon as the guest writes again.
 */
export async function dropUnusedOverlays(monitor: Monitor, home: string): Promise<void> {
  const record = await readOverlayRecord(home)
  if (record === undefined) return
  const active = await inUse(monitor, record)
  for (const recorded of record.disks) if (!active.includes(recorded)) await remove(monitor, recorded, record)
  if (active.length === 0) await removeOverlayRecord(home)
}

/**
 * Writes the overlays' content into the owner's files while the VM runs, stops it for the moment in which
 * each disk changes back, removes the overlays while nothing is written, and lets the VM go on if it ran. So
 * at any crash an overlay that still exists may be committed. Throws `hypervisor_failed` with the reason of a
 * job that could not be done; then the VM runs on its overlays and the record stays. Throws `conflict` where
 * the VM that the overlays belong to is another process.
 */
export async function mergeOverlays(
  monitor: Monitor,
  { home, record, ...hooks }: MergeHooks & { home: string; record: OverlayRecord },
): Promise<number> {
  const failures = new Map<string, string>()
  const stopListening = monitor.subscribe(({ event, data }) => {
    if (event === "BLOCK_JOB_COMPLETED" && typeof data?.["error"] === "string")
      failures.set(String(data["device"]), data["error"])
  })
  try {
    const active = await inUse(monitor, record)
    for (const recorded of record.disks)
      if (!active.includes(recorded)) await remove(monitor, recorded, record)
    if (active.length > 0) await writeOverlayRecord(home, { ...record, staged: true, merging: true })
    await startJobs(monitor, active)
    await hooks.onStep?.("committing")
    await untilReady(monitor, active, failures)
    await hooks.onStep?.("ready")
    const pauseMs = active.length === 0 ? 0 : await changeBack(monitor, active, { hooks, failures })
    await removeOverlayRecord(home)
    return pauseMs
  } finally {
    stopListening()
  }
}

async function startJobs(monitor: Monitor, active: readonly RecordedOverlay[]): Promise<void> {
  const jobs = await blockJobs(monitor)
  for (const { job, overlayNode, base } of active) {
    if (jobs.some(({ device }) => device === job)) continue
    await monitor.execute("block-commit", { "job-id": job, device: overlayNode, "base-node": base.node })
  }
}

async function untilReady(
  monitor: Monitor,
  active: readonly RecordedOverlay[],
  failures: ReadonlyMap<string, string>,
): Promise<void> {
  const started = performance.now()
  for (; ; await delay(READY_POLL_MS)) {
    const jobs = await blockJobs(monitor)
    const remainingMax = REMAINING_BYTES_PER_S * Math.ceil((performance.now() - started) / 1000)
    const states = active.map((recorded) => {
      const found = jobs.find(({ device }) => device === recorded.job)
      if (found === undefined) throw notMerged(recorded, failures)
      return found.ready && found.len - found.offset <= remainingMax
    })
    if (states.every(Boolean)) return
  }
}

async function changeBack(
  monitor: Monitor,
  active: readonly RecordedOverlay[],
  { hooks, failures }: { hooks: MergeHooks; failures: ReadonlyMap<string, string> },
): Promise<number> {
  const { running } = await monitor.execute<VmStatus>("query-status")
  await hooks.beforeSecondPause?.({ wasRunning: running })
  const started = performance.now()
  try {
    if (running) await monitor.execute("stop")
    await hooks.onStep?.("stopped")
    for (const recorded of active) {
      await pivot(monitor, recorded, failures)
      await hooks.onStep?.("pivoted")
      await remove(monitor, recorded, { staged: true })
    }
    await hooks.onStep?.("unlinked")
  } finally {
    if (running) await ensureRunning(monitor)
    await hooks.afterSecondPause?.()
  }
  return running ? performance.now() - started : 0
}

async function pivot(
  monitor: Monitor,
  recorded: RecordedOverlay,
  failures: ReadonlyMap<string, string>,
): Promise<void> {
  const { job } = recorded
  await monitor.execute("job-complete", { id: job })
  const end = performance.now() + PIVOT_TIMEOUT_MS
  for (let cancelled = false; await isAtWork(monitor, job); await delay(PIVOT_POLL_MS)) {
    if (cancelled || performance.now() < end) continue
    // It must not change back later, when the guest writes and the overlay is still there.
    await monitor.execute("block-job-cancel", { device: job, force: true })
    cancelled = true
  }
  if ((await inUse(monitor, { disks: [recorded] })).length > 0) throw notMerged(recorded, failures)
}

async function isAtWork(monitor: Monitor, job: string): Promise<boolean> {
  return (await blockJobs(monitor)).some(({ device }) => device === job)
}

/**
 * Removes an overlay that no device uses. Only the QEMU that has opened it can know that: one that its owner
 * started since knows nothing of what the overlay holds. The file goes first, so that a crash in between
 * leaves a node and no doubt.
 */
async function remove(
  monitor: Monitor,
  { overlay, overlayNode, base }: RecordedOverlay,
  { staged }: Pick<OverlayRecord, "staged">,
): Promise<void> {
  const nodes = await monitor.execute<{ "node-name": string }[]>("query-named-block-nodes", { flat: true })
  const known = nodes.some((node) => node["node-name"] === overlayNode)
  if (staged && !known && (await stat(overlay).catch(() => undefined)) !== undefined) {
    throw new StillframeError(
      "conflict",
      `${overlay} holds the last data of a QEMU that has ended, and another one runs on ${base.path}; stop it and run qemu-img commit on the overlay if that data counts more, then remove it`,
    )
  }
  await unlinkDurably(overlay)
  if (known) await monitor.execute("blockdev-del", { "node-name": overlayNode })
}

/** Those whose overlay a device writes to. */
async function inUse(monitor: Monitor, { disks }: Pick<OverlayRecord, "disks">): Promise<RecordedOverlay[]> {
  const blocks = await monitor.execute<{ inserted?: { "node-name": string } }[]>("query-block")
  const nodes = new Set(blocks.map(({ inserted }) => inserted?.["node-name"]))
  return disks.filter(({ overlayNode }) => nodes.has(overlayNode))
}

async function blockJobs(monitor: Monitor): Promise<BlockJob[]> {
  return await monitor.execute<BlockJob[]>("query-block-jobs")
}

function notMerged(
  { base, overlay, job }: RecordedOverlay,
  failures: ReadonlyMap<string, string>,
): StillframeError {
  return new StillframeError(
    "hypervisor_failed",
    `${overlay} could not be merged into ${base.path} (${failures.get(job) ?? "the job ended without a reason"}); the VM keeps using both. Check that the disk has space; Stillframe tries again`,
  )
}
