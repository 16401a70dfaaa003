import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { qemuFiles } from "@stillframe/hypervisors/qemu/process/command"
import { generationDir, instanceDir, rawMemoryName, snapshotDir } from "@stillframe/storage/layout"
import { hold } from "../guest.ts"
import type { Machine } from "../machine.ts"
import { printTimes } from "../measure.ts"
import { spawnProgram, startProgram, type Program } from "../program.ts"
import { scratch } from "../scratch.ts"
import { startParts, type Parts } from "../stack.ts"

const rounds = 7
/** Of these QEMU reads every page within the pause, which makes it long enough to be hit. */
const memoryMib = 2_048
const waitMsMax = 30_000
const lookMs = 1
const statusMs = 50

/**
 * How long a VM stays paused after SIGKILL has hit, in the middle of the save, its captor, the
 * capture-worker, or both. The end of each pause is the first growth of the guest's console, which it writes
 * to all the time: later than the VM's resumption by a line of the guest and a look of ours, a millisecond or
 * two.
 */
export async function benchRecovery(machine: Machine): Promise<void> {
  using place = scratch("recovery")
  await using resources = new AsyncDisposableStack()
  const parts = resources.use(await startParts(machine, join(place.dir, "data")))
  const worker = await startWorker(parts)
  const subject: Subject = { parts, worker, instance: await launch(parts) }
  resources.defer(() => subject.worker[Symbol.asyncDispose]())
  const pauseMs = await undisturbedPauseMs(subject)
  console.log(
    `\nfrom SIGKILL in the save to the guest's next output; heartbeat guest of ${memoryMib} MiB, undisturbed pause ${Math.round(pauseMs)} ms`,
  )
  const captor: number[] = []
  const workers: number[] = []
  const both: Restart[] = []
  for (let round = 0; round < rounds; round++) {
    captor.push(
      await killed(subject, `captor-${round}`, ({ captorPid }) => process.kill(captorPid, "SIGKILL")),
    )
    workers.push(await killed(subject, `worker-${round}`, () => process.kill(subject.worker.pid, "SIGKILL")))
    subject.worker = await startWorker(parts)
    both.push(await killedBoth(subject, `both-${round}`))
  }
  // The heartbeat never idles; during a pause it leaves its processor to the worker that starts.
  await hold(generationDir(parts.dataDir, subject.instance.id, 1))
  const loads = both.map(loadMs)
  printTimes([
    { what: "captor killed", ms: captor, target: "≤ 100 ms" },
    { what: "worker killed", ms: workers, target: "≤ 1000 ms" },
    {
      what: "both killed, from the new worker's spawn",
      ms: both.map((each) => each.resumedMs),
      target: "≤ 2000 ms",
    },
    { what: "of which node loading the worker's program", ms: loads },
    { what: "the new worker's spawn to its taking work", ms: both.map((each) => each.startedMs) },
  ])
}

interface Subject {
  readonly parts: Parts
  readonly instance: InstanceResource
  worker: Program
}

async function startWorker({ workerEnv }: Parts): Promise<Program> {
  return startProgram("capture-worker", workerEnv)
}

async function launch({ api }: Parts): Promise<InstanceResource> {
  return api.request("POST", "/instances", {
    name: "bench",
    launch: { image: "heartbeat", memory_mib: memoryMib },
  })
}

async function request(parts: Parts, instance: InstanceResource, name: string): Promise<SnapshotResource> {
  return parts.api.request("POST", `/instances/${instance.id}/snapshots`, { kind: "Standby", name })
}

async function undisturbedPauseMs({ parts, instance }: Subject): Promise<number> {
  const { id } = await request(parts, instance, "undisturbed")
  for (const end = performance.now() + waitMsMax; performance.now() < end; await delay(statusMs)) {
    const snapshot = await parts.api.request<SnapshotResource>("GET", `/snapshots/${id}`)
    if (snapshot.status === "ready") return snapshot.pause_ms ?? Number.NaN
    if (snapshot.status === "failed") throw new Error(`the capture failed: ${snapshot.error?.message}`)
  }
  throw new Error(`no capture within ${waitMsMax} ms`)
}

/** Kills in the pause of a new snapshot; milliseconds until the VM ran again. */
async function killed(
  subject: Subject,
  name: string,
  kill: (pause: { captorPid: number }) => void,
): Promise<number> {
  const { parts, instance } = subject
  const snapshot = await request(parts, instance, name)
  const pause = await inTheSave(parts, instance, snapshot)
  const console = consoleOf(parts, instance)
  const { size } = statSync(console)
  const killedAt = performance.now()
  kill(pause)
  const ms = (await grownAt(console, size)) - killedAt
  // Or it would be captured again, in the middle of the next round.
  await parts.api.request("DELETE", `/snapshots/${snapshot.id}`)
  return ms
}

interface Restart {
  /** From the new worker's spawn to the VM running. */
  readonly resumedMs: number
  /** To its taking work. */
  readonly startedMs: number
}

async function killedBoth(subject: Subject, name: string): Promise<Restart> {
  const { parts } = subject
  const dead = subject.worker
  let spawnedAt = Number.NaN
  let startedAt = Promise.resolve(Number.NaN)
  let killedAt = Number.NaN
  const resumedMs = await killed(subject, name, ({ captorPid }) => {
    killedAt = performance.now()
    process.kill(dead.pid, "SIGKILL")
    process.kill(captorPid, "SIGKILL")
    spawnedAt = performance.now()
    subject.worker = spawnProgram("capture-worker", parts.workerEnv)
    startedAt = subject.worker.logged(({ msg }) => msg === "started").then(() => performance.now())
  })
  const startedMs = (await startedAt) - spawnedAt
  return { resumedMs: resumedMs - (spawnedAt - killedAt), startedMs }
}

/** What node takes to load the worker's modules, in a process that does nothing else. */
function loadMs(): number {
  const script = `await import(${JSON.stringify(import.meta.resolve("@stillframe/capture-worker/start"))})`
  const startedAt = performance.now()
  spawnSync(process.execPath, ["--input-type=module", "--eval", script])
  return performance.now() - startedAt
}

/**
 * Resolves once bytes of the guest's memory have reached the attempt's file: the VM is paused and its save
 * under way.
 */
async function inTheSave(
  { dataDir }: Parts,
  instance: InstanceResource,
  snapshot: SnapshotResource,
): Promise<{ captorPid: number }> {
  const attempts = snapshotDir(join(dataDir, "storage"), snapshot.id)
  for (const end = performance.now() + waitMsMax; performance.now() < end; await delay(lookMs)) {
    if (!savedBytes(attempts)) continue
    const record = JSON.parse(
      readFileSync(join(instanceDir(dataDir, instance.id), "pause.json"), "utf8"),
    ) as {
      captor: { pid: number }
    }
    return { captorPid: record.captor.pid }
  }
  throw new Error(`no save within ${waitMsMax} ms`)
}

function savedBytes(attempts: string): boolean {
  try {
    return readdirSync(attempts).some((token) => statSync(join(attempts, token, rawMemoryName)).size > 0)
  } catch {
    // Not there yet.
    return false
  }
}

function consoleOf({ dataDir }: Parts, instance: InstanceResource): string {
  return join(generationDir(dataDir, instance.id, 1), qemuFiles.serial)
}

async function grownAt(file: string, size: number): Promise<number> {
  for (const end = performance.now() + waitMsMax; performance.now() < end; await delay(lookMs))
    if (statSync(file).size > size) return performance.now()
  throw new Error(`the guest printed nothing for ${waitMsMax} ms after the kill`)
}
