import { readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { PauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest"
import { firstGap, untilTicks } from "../hypervisors/test-vm.ts"
import { subjects, untilSaving } from "./held-saves.ts"
import {
  expireLeases,
  serial,
  serialLines,
  testStack,
  untilTrue,
  type AppProcess,
  type TestStack,
} from "./test-stack.ts"

for (const { name, canCancel } of subjects)
  if (canCancel) console.warn(`skipped: a save of ${name} can be called off, so none outlives its worker`)
console.warn("skipped: the longest stop takes 14 s, so firecracker's stands for the others'")

// What becomes of a VM in whose pause somebody dies. After each: it runs, nobody sees half a snapshot, and
// the next try is whole.
describe.each(subjects)("in a save of $name", (subject) => {
  let stack: TestStack
  let worker: AppProcess
  let source: InstanceResource
  let env: Record<string, string>

  beforeAll(async () => {
    stack = await testStack()
    env = await subject.env(stack)
    worker = await stack.spawn("capture-worker", env)
    const { name: hypervisor, launch } = subject
    source = await stack.api.request("POST", "/instances", { name: "source", hypervisor, launch })
    const dir = stack.generationDir(source)
    await untilTrue(dir, async () => (await serialLines(dir)) >= 3)
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  beforeEach(async () => {
    if (worker.child.exitCode !== null || worker.child.signalCode !== null)
      worker = await stack.spawn("capture-worker", env)
  })
  afterEach(() => subject.release(stack.generationDir(source)))

  const release = (): Promise<void> => subject.release(stack.generationDir(source))

  test("the captor is killed: its worker resumes the VM at once, and the capture is tried again", async () => {
    const { snapshot, record } = await untilSaving(stack, subject, source)

    process.kill(record.captor.pid, "SIGKILL")
    await release()
    await expectRuns(stack, source)

    await expectWhole(stack, snapshot)
    expect(await attemptsOf(stack, snapshot)).not.toContain(record.token)
    expect(await readdir(join(stack.dataDir, "instances", source.id))).toEqual(["1"])
  })

  test("the captor stands still past its deadline: the host's sweep kills it, and resumes the VM", async () => {
    const { snapshot, record } = await untilSaving(stack, subject, source)

    process.kill(record.captor.pid, "SIGSTOP")
    const overdue = { ...record, deadlineUptime: 0, limitUptime: 0 }
    await writeFile(join(stack.dataDir, "instances", source.id, "pause.json"), JSON.stringify(overdue))
    await release()

    await expectRuns(stack, source)
    await expectWhole(stack, snapshot)
    expect(await attemptsOf(stack, snapshot)).not.toContain(record.token)
    expect(await processAlive(record.captor)).toBe(false)
  })

  test("the worker is killed: its captor resumes the VM alone, and the next worker has a whole snapshot", async () => {
    const { snapshot, record } = await untilSaving(stack, subject, source)

    await kill(worker)
    await release()
    await expectRuns(stack, source)
    await expectUnseen(stack, snapshot)
    await expireLeases(stack)
    worker = await stack.spawn("capture-worker", env)

    await expectWhole(stack, snapshot)
    expect(await processAlive(record.captor)).toBe(false)
    await expectTry(snapshot, record)
  })

  // Only a save that can be called off is measured again and again.
  test.skipIf(!subject.canCancel)(
    "the worker is killed just when its captor has progress to report: the captor resumes the VM all the same",
    async () => {
      const { snapshot, record } = await untilSaving(stack, subject, source)

      process.kill(record.captor.pid, "SIGSTOP")
      const reportDue = performance.now() + 400
      await kill(worker)
      await expect.poll(() => performance.now(), { interval: 50 }).toBeGreaterThan(reportDue)
      process.kill(record.captor.pid, "SIGCONT")

      await expectRuns(stack, source)
      await expireLeases(stack)
      worker = await stack.spawn("capture-worker", env)
      await expectWhole(stack, snapshot)
    },
  )

  test("captor and worker are killed: the next worker resumes the VM before all else", async () => {
    const { snapshot, record } = await untilSaving(stack, subject, source)

    worker.child.kill("SIGSTOP")
    process.kill(record.captor.pid, "SIGKILL")
    await kill(worker)
    await release()
    await expectUnseen(stack, snapshot)
    worker = await stack.spawn("capture-worker", env)
    await expectRuns(stack, source)
    await expireLeases(stack)

    await expectWhole(stack, snapshot)
    expect(await attemptsOf(stack, snapshot)).not.toContain(record.token)
  })

  test("the worker is asked to stop: it exits with 0, the VM runs, and the snapshot is whole in the end", async () => {
    const { snapshot, record } = await untilSaving(stack, subject, source)

    worker.child.kill("SIGTERM")
    await release()

    expect(await worker.ended).toBe(0)
    await expectRuns(stack, source)
    worker = await stack.spawn("capture-worker", env)
    await expectWhole(stack, snapshot)
    await expectTry(snapshot, record)
  })

  // Where a save can be called off, none outlives its worker.
  test.skipIf(subject.canCancel)(
    "the next worker comes before it is over: it waits for the captor, and publishes what that has made",
    async () => {
      const { snapshot, record } = await untilSaving(stack, subject, source)
      const never = Number.MAX_SAFE_INTEGER
      const patient = { ...record, deadlineUptime: never, limitUptime: never }
      await writeFile(join(stack.dataDir, "instances", source.id, "pause.json"), JSON.stringify(patient))

      await kill(worker)
      await expireLeases(stack)
      worker = await stack.spawn("capture-worker", env)
      await expect.poll(() => triesOf(stack, snapshot)).toBe(2)
      expect(await processAlive(record.captor)).toBe(true)
      await release()

      await expectRuns(stack, source)
      await expectWhole(stack, snapshot)
      expect(await attemptsOf(stack, snapshot)).toEqual([record.token])
    },
  )

  test.skipIf(subject.name !== "firecracker")(
    "the worker is asked to stop, and it takes longer than that may: the captor is left to itself, and resumes the VM",
    async () => {
      const { snapshot, record } = await untilSaving(stack, subject, source)

      worker.child.kill("SIGTERM")

      expect(await worker.ended).toBe(0)
      expect(await processAlive(record.captor)).toBe(true)
      await expectUnseen(stack, snapshot)
      await release()
      await expectRuns(stack, source)
      await expireLeases(stack)
      worker = await stack.spawn("capture-worker", env)
      await expectWhole(stack, snapshot)
      expect(await attemptsOf(stack, snapshot)).toEqual([record.token])
    },
  )

  /** What a stopped captor goes through with is not asked of the VM a second time. */
  async function expectTry(snapshot: SnapshotResource, first: PauseRecord): Promise<void> {
    const attempts = await attemptsOf(stack, snapshot)
    expect([attempts.length, attempts.includes(first.token)]).toEqual([1, !subject.canCancel])
  }
})

async function triesOf({ db }: TestStack, { id }: SnapshotResource): Promise<number | undefined> {
  const operations = db.selectFrom("operations").where("snapshot_id", "=", id).where("kind", "=", "capture")
  return (await operations.select("attempt").executeTakeFirst())?.attempt
}

/** The guest prints on, and no tick is missing: whatever paused it, it runs. */
async function expectRuns(stack: TestStack, instance: InstanceResource): Promise<void> {
  const dir = stack.generationDir(instance)
  await untilTicks(dir, 3, await serialLines(dir))
  expect(firstGap(await serial(dir))).toBeUndefined()
}

async function expectUnseen(stack: TestStack, { id }: SnapshotResource): Promise<void> {
  const seen = await stack.api.request<SnapshotResource>("GET", `/snapshots/${id}`)
  expect(seen).toMatchObject({ status: "capturing", size_bytes: 0 })
}

async function expectWhole(stack: TestStack, { id }: SnapshotResource): Promise<void> {
  const settled = await stack.settled(id)
  expect([settled.status, settled.error]).toEqual(["ready", undefined])
}

async function attemptsOf(stack: TestStack, { id }: SnapshotResource): Promise<string[]> {
  return await readdir(join(stack.storageDir, "snapshots", id))
}

async function kill({ child, ended }: AppProcess): Promise<void> {
  child.kill("SIGKILL")
  await ended
}
