import { readdir, stat } from "node:fs/promises"
import { join } from "node:path"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { manifestName, snapshotDir } from "@stillframe/storage/layout"
import type { LogLine } from "../program.ts"
import type { Stack } from "../stack.ts"

/** Where a snapshot's time went, in milliseconds. */
export interface Phases {
  readonly totalMs: number
  readonly rawBytes: number
  /** In order; together the total. File times are exact to the kernel's tick of some milliseconds. */
  readonly parts: Readonly<Record<string, number>>
}

interface Observed {
  readonly stack: Stack
  readonly completed: SnapshotResource
  readonly requestedAt: number
  readonly answeredAt: number
  readonly receivedAt: number
}

/** Puts a snapshot's times together from what it left: files' times, the events, and the worker's log. */
export async function phasesOf(observed: Observed): Promise<Phases> {
  const { completed, requestedAt, answeredAt, receivedAt } = observed
  const { attemptAt, sealedAt } = await filesOf(observed)
  const { capturedAt, compressedAt } = await eventsOf(observed)
  const log = await compressionLog(observed)
  const verifiedAt = Date.parse(log.time)
  const packedAt = verifiedAt - Number(log["verifyMs"])
  const packingAt = packedAt - Number(log["durationMs"])
  const pausedAt = Date.parse(completed.captured_at ?? "")
  const moments: [string, number][] = [
    ["request answered", answeredAt],
    ["queue, claim, captor's start", attemptAt],
    ["monitor, sink, pause record", pausedAt],
    ["pause", pausedAt + (completed.pause_ms ?? 0)],
    ["seal: hash, fsync, manifest", sealedAt],
    ["captor's end, publish", capturedAt],
    ["queue, claim of the compression", packingAt],
    ["compress, fsync", packedAt],
    ["read back, verify", verifiedAt],
    ["publish", compressedAt],
    ["number, deliver, verify signature", receivedAt],
  ]
  const parts = moments.map(([what, until], index) => [
    what,
    until - (moments[index - 1]?.[1] ?? requestedAt),
  ])
  return {
    totalMs: receivedAt - requestedAt,
    rawBytes: completed.uncompressed_size_bytes ?? 0,
    parts: Object.fromEntries(parts),
  }
}

/** The attempt's directory is the first thing a captor makes, its manifest the last. */
async function filesOf({ stack, completed }: Observed): Promise<{ attemptAt: number; sealedAt: number }> {
  const all = snapshotDir(join(stack.dataDir, "storage"), completed.id)
  const attempt = join(all, (await readdir(all)).at(-1) ?? "")
  const [{ birthtimeMs }, { ctimeMs }] = await Promise.all([stat(attempt), stat(join(attempt, manifestName))])
  return { attemptAt: birthtimeMs, sealedAt: ctimeMs }
}

async function eventsOf({
  stack,
  completed,
}: Observed): Promise<{ capturedAt: number; compressedAt: number }> {
  const events = await stack.api.request<EventEnvelope[]>("GET", `/events?snapshot_id=${completed.id}`)
  const at = (type: EventEnvelope["type"]): number =>
    Date.parse(events.find((event) => event.type === type)?.occurred_at ?? "")
  return { capturedAt: at("snapshot.captured"), compressedAt: at("snapshot.completed") }
}

async function compressionLog({ stack, completed }: Observed): Promise<LogLine> {
  return stack.logged(({ msg, snapshotId }) => msg === "memory compressed" && snapshotId === completed.id)
}
