import { execFileSync } from "node:child_process"
import { readdirSync, rmSync, statSync } from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { generationDir } from "@stillframe/storage/layout"
import { startReceiver, type Receiver } from "@stillframe/testing/receiver"
import { Webhook } from "standardwebhooks"
import { hold, release, saveByHand, startGuest, untilCounting, type Guest } from "../guest.ts"
import { zstdVersion, type Machine } from "../machine.ts"
import { byTurns, printComparisons, printTimes, wallClock } from "../measure.ts"
import { scratch } from "../scratch.ts"
import { startWhole, type Stack } from "../stack.ts"
import { phasesOf, type Phases } from "./phases.ts"

const rounds = 9
const memoryMib = 512

/**
 * From the request to the verified `snapshot.completed` at the receiver, against the same by hand: QMP stop,
 * `exec:cat`, cont, then `zstd -1` and `zstd -t`. One guest each, of the same kind on the same file system;
 * the one that is not being measured stands still.
 */
export async function benchEndToEnd(machine: Machine): Promise<void> {
  console.log("\nrequest → snapshot.completed verified at the receiver, 512 MiB demo guest, zstd 1; ms")
  if (zstdVersion() === undefined) {
    console.log("not measured: the zstd command, which it is compared with, is not on PATH")
    return
  }
  using place = scratch("end-to-end")
  await using resources = new AsyncDisposableStack()
  const stack = resources.use(await startWhole(machine, join(place.dir, "data")))
  const receiver = resources.use(await startReceiver())
  const hook = await stack.api.request<{ secret: string }>("POST", "/webhooks", {
    url: receiver.url,
    event_types: ["snapshot.completed"],
  })
  const instance = await stack.api.request<InstanceResource>("POST", "/instances", {
    name: "bench",
    launch: { image: "demo", memory_mib: memoryMib },
  })
  resources.defer(() => stack.api.request("DELETE", `/instances/${instance.id}`))
  const ourDir = generationDir(stack.dataDir, instance.id, 1)
  await untilCounting(ourDir)
  await hold(ourDir)
  const imagesDir = join(stack.dataDir, "images")
  const handDir = join(place.dir, "hand")
  const guest = resources.use(await startGuest(machine, { dir: handDir, imagesDir, memoryMib, disks: [] }))
  await hold(handDir)

  const subject = { stack, receiver, verifier: new Webhook(hook.secret), instance }
  const { ours, theirs } = await byTurns(
    rounds,
    (round) => whileRunning(ourDir, () => snapshot(subject, round)),
    () => whileRunning(handDir, () => byHand(guest, place.dir)),
  )
  print(ours, theirs)
}

async function whileRunning<T>(dir: string, work: () => Promise<T>): Promise<T> {
  await release(dir)
  try {
    return await work()
  } finally {
    await hold(dir)
  }
}

interface Subject {
  readonly stack: Stack
  readonly receiver: Receiver
  readonly verifier: Webhook
  readonly instance: InstanceResource
}

async function snapshot({ stack, receiver, verifier, instance }: Subject, round: number): Promise<Phases> {
  const requestedAt = wallClock()
  const { id } = await stack.api.request<SnapshotResource>("POST", `/instances/${instance.id}/snapshots`, {
    kind: "Standby",
    name: `bench-${round}`,
    compression: { enabled: true, algorithm: "zstd", level: 1 },
  })
  const answeredAt = wallClock()
  const delivery = (await receiver.received(round + 1))[round]
  const event = verifier.verify(
    delivery?.body ?? "",
    delivery?.headers as Record<string, string>,
  ) as EventEnvelope
  const receivedAt = wallClock()
  const completed = event.data as SnapshotResource
  if (completed.id !== id || completed.compression_state !== "compressed")
    throw new Error(`the event is not about a compressed ${id}: ${delivery?.body}`)
  return phasesOf({ stack, completed, requestedAt, answeredAt, receivedAt })
}

interface ByHand {
  readonly pauseMs: number
  readonly saveMs: number
  readonly compressMs: number
  readonly testMs: number
  /** What making both files durable took besides. */
  readonly syncMs: number
  readonly rawBytes: number
}

async function byHand(guest: Guest, dir: string): Promise<ByHand> {
  const raw = join(dir, "memory")
  const packed = join(dir, "memory.zst")
  const started = performance.now()
  const pauseMs = await saveByHand(guest, raw)
  const saveMs = performance.now() - started
  const rawSyncMs = timed("sync", [raw])
  const compressMs = timed("zstd", ["-1", `-T${availableParallelism()}`, "-q", raw, "-o", packed])
  const packedSyncMs = timed("sync", [packed])
  const testMs = timed("zstd", ["-tq", packed])
  const rawBytes = statSync(raw).size
  for (const name of readdirSync(dir)) if (name.startsWith("memory")) rmSync(join(dir, name))
  return { pauseMs, saveMs, compressMs, testMs, syncMs: rawSyncMs + packedSyncMs, rawBytes }
}

function timed(command: string, args: readonly string[]): number {
  const started = performance.now()
  execFileSync(command, args, { stdio: ["ignore", "ignore", "inherit"] })
  return performance.now() - started
}

function print(ours: readonly Phases[], theirs: readonly ByHand[]): void {
  const total = ours.map((phases) => phases.totalMs)
  const plain = theirs.map(({ saveMs, compressMs, testMs }) => saveMs + compressMs + testMs)
  const synced = theirs.map(({ syncMs }, round) => (plain[round] ?? 0) + syncMs)
  printComparisons([
    { what: "to the receiver", ours: total, theirs: plain, target: "≤ 1.25" },
    { what: "the same, theirs synced as ours is", ours: total, theirs: synced, target: "" },
  ])
  const megabytes = (values: readonly number[]): string =>
    values.map((value) => Math.round(value / 1e6)).join(" ")
  console.log(`memory as saved, MB: ours ${megabytes(ours.map(({ rawBytes }) => rawBytes))}`)
  console.log(`                   theirs ${megabytes(theirs.map(({ rawBytes }) => rawBytes))}`)
  console.log("where ours goes")
  const names = Object.keys(ours[0]?.parts ?? {})
  printTimes(names.map((what) => ({ what, ms: ours.map(({ parts }) => parts[what] ?? Number.NaN) })))
  console.log("where theirs goes")
  printTimes([
    { what: "pause", ms: theirs.map(({ pauseMs }) => pauseMs) },
    { what: "save with set-up", ms: theirs.map(({ saveMs }) => saveMs) },
    { what: "zstd -1", ms: theirs.map(({ compressMs }) => compressMs) },
    { what: "zstd -t", ms: theirs.map(({ testMs }) => testMs) },
    { what: "sync of both files, not counted", ms: theirs.map(({ syncMs }) => syncMs) },
  ])
}
