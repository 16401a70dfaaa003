import { readFile } from "node:fs/promises"
import { constants } from "node:os"
import { join, resolve } from "node:path"
import type { EventEnvelope } from "@stillframe/domain/events"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { processEnv } from "@stillframe/runtime/env"
import { createLogger } from "@stillframe/runtime/logger"
import { endSoon, logLevel } from "@stillframe/runtime/process"
import { onStopSignals } from "@stillframe/runtime/stop-signals"
import { counts, waitForCounts, type Count } from "../console.ts"
import { startStack } from "../stack/stack.ts"
import { client, type Client } from "./client.ts"
import { startReceiver, type Receiver } from "./receiver.ts"
import { report, table } from "./report.ts"

const defaultDataDir = resolve(import.meta.dirname, "../../../../.stillframe/demo")
/** Longer than anything here takes on a slow machine; then the demo has failed. */
const deadlineMs = 5 * 60_000

/**
 * The main job, shown and checked: boots a Linux guest, takes a compressed snapshot of it while it runs,
 * verifies the webhook that says so, and forks it. Every claim is checked; one that does not hold ends the
 * process with status 1.
 */
export async function demo(): Promise<void> {
  const env = processEnv()
  const log = createLogger({ service: "demo", level: logLevel(env, "warn") })
  const stop = onStopSignals(log)
  const signal = AbortSignal.any([AbortSignal.timeout(deadlineMs), stop.signal])
  try {
    await using resources = new AsyncDisposableStack()
    const stack = resources.use(
      await report("start the stack", () =>
        startStack({ PORT: "0", DATA_DIR: defaultDataDir, ...env }, log, stop.signal),
      ),
    )
    const api = client({ url: stack.url, token: await readFile(stack.tokenFile, "utf8") })
    const receiver = resources.use(await startReceiver())
    await run({ api, dataDir: stack.dataDir, receiver, resources, signal })
    console.log(`\nEvery claim held. The snapshot and all else is in ${stack.dataDir}.`)
  } catch (error) {
    if (stop.signal.aborted) {
      console.error("\nThe demo was stopped; its guests have ended.")
      process.exitCode = 128 + constants.signals[await stop.asked]
      return
    }
    console.error(`\nThe demo failed: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = 1
  } finally {
    endSoon()
  }
}

interface Demo {
  readonly api: Client
  readonly dataDir: string
  readonly receiver: Receiver
  readonly resources: AsyncDisposableStack
  readonly signal: AbortSignal
}

async function run({ api, dataDir, receiver, resources, signal }: Demo): Promise<void> {
  signal.throwIfAborted()
  const suffix = Date.now().toString(36)
  const hook = await api.request<{ id: string; secret: string }>("POST", "/webhooks", {
    url: receiver.url,
    event_types: ["snapshot.completed"],
  })
  resources.defer(() => api.request("DELETE", `/webhooks/${hook.id}`))
  receiver.useSecret(hook.secret)

  const launch = (): Promise<InstanceResource> =>
    api.request("POST", "/instances", { name: `demo-${suffix}`, image: "demo" })
  const source = await report("launch the guest", launch)
  resources.defer(() => api.request("DELETE", `/instances/${source.id}`))
  const sourceLog = serialLog(dataDir, source)
  const before = await report("boot Linux until it counts", () =>
    waitForCounts(sourceLog, (found) => found.length >= 5, signal),
  )

  const request = {
    kind: "Standby",
    name: `demo-${suffix}`,
    compression: { enabled: true, algorithm: "zstd", level: 1 },
  }
  signal.throwIfAborted()
  const requested = await report("request a snapshot (answered)", () =>
    api.request<SnapshotResource>("POST", `/instances/${source.id}/snapshots`, request),
  )
  const event = await report("until the signed webhook says snapshot.completed", () =>
    within(signal, receiver.received("snapshot.completed")),
  )
  const snapshot = event.data as SnapshotResource
  check("the webhook is about this snapshot", snapshot.id === requested.id)
  check("the memory is compressed", snapshot.compression_state === "compressed")
  const after = await waitForCounts(sourceLog, (found) => found.length >= before.length + 5, signal)
  check("the source is still running", (await state(api, source.id)) === "Running")
  check("the source counts on without a gap", isGapless(after))
  const atCompletion = await counts(sourceLog)

  signal.throwIfAborted()
  const fork = await report("fork the snapshot", () =>
    api.request<InstanceResource>("POST", `/snapshots/${snapshot.id}/fork`, { name: `demo-${suffix}-fork` }),
  )
  resources.defer(() => api.request("DELETE", `/instances/${fork.id}`))
  const forked = await report("until the fork counts on", () =>
    waitForCounts(serialLog(dataDir, fork), (found) => found.length >= 5, signal),
  )
  checkFork({ before, atCompletion, forked })
  check(
    "source and fork run side by side",
    (await state(api, source.id)) === "Running" && (await state(api, fork.id)) === "Running",
  )
  await showResult(api, event, snapshot)
}

/**
 * The guest's state was taken between two looks at its console: the fork's first whole line follows one of
 * those in between.
 */
function checkFork({
  before,
  atCompletion,
  forked,
}: Record<"before" | "atCompletion" | "forked", readonly Count[]>): void {
  const first = forked[0]
  const source = before[0]
  const earliest = before.at(-1)?.count ?? 0
  const latest = atCompletion.at(-1)?.count ?? 0
  if (first === undefined || source === undefined) throw new Error("a console shows no count")
  check(
    "the fork's counter goes on where the guest was captured",
    first.count > earliest && first.count <= latest + 1,
  )
  check("the fork counts on without a gap", isGapless(forked))
  check(
    "the checksum of the guest's random file is unchanged",
    forked.every(({ checksum }) => checksum === source.checksum),
  )
  check(
    "the fork did not boot: its boot_id is the source's",
    forked.every(({ bootId }) => bootId === source.bootId),
  )
}

async function showResult(api: Client, event: EventEnvelope, snapshot: SnapshotResource): Promise<void> {
  const now = await api.request<SnapshotResource>("GET", `/snapshots/${snapshot.id}`)
  const raw = snapshot.uncompressed_size_bytes ?? 0
  const compressed = snapshot.compressed_size_bytes ?? 0
  table([
    ["pause of the VM", `${(snapshot.pause_ms ?? 0).toFixed(0)} ms`],
    ["memory as saved", `${(raw / 1e6).toFixed(1)} MB`],
    [
      "compressed (zstd 1)",
      `${(compressed / 1e6).toFixed(1)} MB, ${((100 * compressed) / raw).toFixed(0)} %`,
    ],
    ["on disk", `${((now.stored_bytes ?? 0) / 1e6).toFixed(1)} MB`],
    ["event", `${event.type}, sequence ${event.sequence}`],
  ])
}

function serialLog(dataDir: string, instance: InstanceResource): string {
  return join(dataDir, "instances", instance.id, "1", "serial.log")
}

async function state(api: Client, id: string): Promise<string> {
  return (await api.request<InstanceResource>("GET", `/instances/${id}`)).state
}

function isGapless(found: readonly Count[]): boolean {
  return found.every(({ count }, index) => index === 0 || count === (found[index - 1]?.count ?? 0) + 1)
}

function check(claim: string, holds: boolean): void {
  console.log(`  ${holds ? "✔" : "✘"} ${claim}`)
  if (!holds) throw new Error(`"${claim}" does not hold`)
}

async function within<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  const late = Promise.withResolvers<never>()
  const onAbort = (): void => late.reject(new Error("it took too long"))
  signal.addEventListener("abort", onAbort, { once: true })
  try {
    signal.throwIfAborted()
    return await Promise.race([promise, late.promise])
  } finally {
    signal.removeEventListener("abort", onAbort)
  }
}
