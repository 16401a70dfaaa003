import { existsSync } from "node:fs"
import { readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { readPauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { endProcess, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import {
  expectRunning,
  overlaysIn,
  startStranger,
  writeAsGuest,
  type Stranger,
} from "../hypervisors/stranger.ts"
import { ground, type Ground } from "../hypervisors/test-vm.ts"
import {
  attach,
  environmentFor,
  homeOf,
  settingsFor,
  stackForAllGrounds,
  untilPaused,
  untilState,
} from "./attached.ts"
import {
  deleteInstances,
  expireLeases,
  testStack,
  untilTrue,
  type AppProcess,
  type TestStack,
} from "./test-stack.ts"

const MIB = 1024 * 1024
/** Pages that were never touched are still looked at: enough of them make a pause that a test can aim at. */
const longPause = { args: ["-m", "3072"] }

describe("whose worker lives on", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await stackForAllGrounds()
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => stack[Symbol.asyncDispose]())

  test("a captor killed in the pause: its worker resumes the VM at once and the capture is tried again", async () => {
    await using place = await ground()
    const stranger = await startStranger(place, longPause)
    const theirs = await attach(stack, stranger)

    const { snapshot, record } = await untilPaused(stack, theirs)
    process.kill(record.captor.pid, "SIGKILL")
    await expectRunning(stranger)

    expect(record.attached).toEqual({ controlSocket: stranger.controlSocket, process: stranger.process })
    expect((await stack.settled(snapshot.id)).status).toBe("ready")
    expect(await readdir(homeOf(stack, theirs))).toEqual(["1"])
  })

  test("an attached VM deleted in the pause of its capture runs on, and nothing of it is kept", async () => {
    await using place = await ground()
    const stranger = await startStranger(place, longPause)
    const theirs = await attach(stack, stranger)

    const { snapshot } = await untilPaused(stack, theirs)
    await stack.api.request("DELETE", `/instances/${theirs.id}`)

    await expectRunning(stranger)
    expect(await stack.settled(snapshot.id)).toMatchObject({ status: "failed", error: { code: "cancelled" } })
    expect(await readdir(join(stack.dataDir, "instances"))).toEqual([])
  })

  test("its owner ends it while its disk is copied: the snapshot has failed, and its file is complete", async () => {
    await using place = await ground()
    const stranger = await startWithSlowDisk(place)
    const theirs = await attach(stack, stranger, { allow_overlay: true })

    const { snapshot } = await untilCopied(stack, theirs)
    await writeAsGuest(stranger, 0x22)
    await endProcess(stranger.process, { graceMs: 0 })
    const stopped = await untilState(stack, theirs, "Stopped")

    expect(stopped.exit_message).toBe("the VM's process, which its owner had started, has ended")
    expect(await overlaysIn(place)).toEqual([])
    expect((await readFile(join(place.root, "slow.raw")))[0]).toBe(0x22)
    expect((await stack.settled(snapshot.id)).status).toBe("failed")
    expect(await readdir(homeOf(stack, theirs))).toEqual(["1"])
  })

  test("deleted after its captor was killed, it runs on its own file again, and nothing of it is kept", async () => {
    await using place = await ground()
    const stranger = await startWithSlowDisk(place)
    const theirs = await attach(stack, stranger, { allow_overlay: true })

    const { captor } = await untilCopied(stack, theirs)
    await writeAsGuest(stranger, 0x22)
    process.kill(captor.pid, "SIGKILL")
    await stack.api.request("DELETE", `/instances/${theirs.id}`)

    expect(await overlaysIn(place)).toEqual([])
    expect((await readFile(join(place.root, "slow.raw")))[0]).toBe(0x22)
    expect(await readdir(join(stack.dataDir, "instances"))).toEqual([])
    await expectRunning(stranger)
  })
})

describe("whose worker is killed", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await testStack()
  })
  afterAll(() => stack[Symbol.asyncDispose]())

  test("captor and worker killed in the pause: the next worker resumes the VM and captures it", async () => {
    await using place = await ground()
    const stranger = await startStranger(place, longPause)
    const worker = await stack.spawn("capture-worker", environmentFor(place, stranger))
    const theirs = await attach(stack, stranger)

    const { snapshot, record } = await untilPaused(stack, theirs)
    await killBoth(worker, record.captor)
    await using _next = await stack.startCaptureWorker(settingsFor(place, stranger))
    await expectRunning(stranger)
    await expireLeases(stack)

    expect((await stack.settled(snapshot.id)).status).toBe("ready")
    await deleteInstances(stack)
  })

  test("while its disk is copied no pause is announced; captor and worker killed then: the next worker leads it back", async () => {
    await using place = await ground()
    const stranger = await startWithSlowDisk(place)
    const worker = await stack.spawn("capture-worker", environmentFor(place, stranger))
    const theirs = await attach(stack, stranger, { allow_overlay: true })
    const home = homeOf(stack, theirs)

    const { snapshot, captor } = await untilCopied(stack, theirs)
    expect(await readPauseRecord(home)).toBeUndefined()
    await killBoth(worker, captor)
    expect(await overlaysIn(place)).toHaveLength(1)
    await writeAsGuest(stranger, 0x22)
    await using _next = await stack.startCaptureWorker(settingsFor(place, stranger))

    expect(await readPauseRecord(home)).toBeUndefined()
    expect(await overlaysIn(place)).toEqual([])
    expect((await readFile(join(place.root, "slow.raw")))[0]).toBe(0x22)
    await expectRunning(stranger)
    await expireLeases(stack)
    expect((await stack.settled(snapshot.id)).status).toBe("ready")
    await deleteInstances(stack)
  })

  test("captor and worker killed while it runs on an overlay, and its owner ends it: its file is complete", async () => {
    await using place = await ground()
    const stranger = await startWithSlowDisk(place)
    const worker = await stack.spawn("capture-worker", environmentFor(place, stranger))
    const theirs = await attach(stack, stranger, { allow_overlay: true })

    const { captor } = await untilCopied(stack, theirs)
    await killBoth(worker, captor)
    await writeAsGuest(stranger, 0x22)
    await endProcess(stranger.process, { graceMs: 0 })
    await using _next = await stack.startCaptureWorker(settingsFor(place, stranger))
    const stopped = await untilState(stack, theirs, "Stopped")

    expect(stopped.exit_message).toBe("the VM's process, which its owner had started, has ended")
    expect(await overlaysIn(place)).toEqual([])
    expect((await readFile(join(place.root, "slow.raw")))[0]).toBe(0x22)
    expect(await readdir(homeOf(stack, theirs))).toEqual(["1"])
    await deleteInstances(stack)
  })
})

test("forgotten with its host while it runs on an overlay, it is led back when the host comes back", async () => {
  await using place = await ground()
  const stranger = await startWithSlowDisk(place)
  await using stack = await testStack()
  const worker = await stack.spawn("capture-worker", environmentFor(place, stranger))
  const theirs = await attach(stack, stranger, { allow_overlay: true })

  const { captor } = await untilCopied(stack, theirs)
  await killBoth(worker, captor)
  await writeAsGuest(stranger, 0x22)
  await stack.db
    .updateTable("hosts")
    .set({ heartbeat_at: new Date(0) })
    .execute()
  expect((await stack.ask("DELETE", `/hosts/${theirs.host}?confirm=1`)).status).toBe(200)
  await stack.startCaptureWorker(settingsFor(place, stranger))

  await untilTrue(place.root, async () => (await overlaysIn(place)).length === 0)
  expect((await readFile(join(place.root, "slow.raw")))[0]).toBe(0x22)
  await expectRunning(stranger)
})

/** The worker stands still first, so that it does not resume the VM of a captor that has died. */
async function killBoth(worker: AppProcess, captor: ProcessIdentity): Promise<void> {
  worker.child.kill("SIGSTOP")
  process.kill(captor.pid, "SIGKILL")
  worker.child.kill("SIGKILL")
  await worker.ended
}

/** Its copy takes long enough that a test can aim at it. */
async function startWithSlowDisk(place: Ground): Promise<Stranger> {
  const disk = join(place.root, "slow.raw")
  await writeFile(disk, Buffer.alloc(256 * MIB, 7))
  return startStranger(place, { args: [...longPause.args, "-drive", `file=${disk},format=raw,if=virtio`] })
}

/** Requests a snapshot and waits until its VM runs again and its disk is being copied. */
async function untilCopied(
  stack: TestStack,
  instance: InstanceResource,
): Promise<{ snapshot: SnapshotResource; captor: ProcessIdentity }> {
  const { snapshot, record } = await untilPaused(stack, instance)
  const attempt = join(stack.storageDir, "snapshots", snapshot.id, record.token)
  await untilTrue(attempt, async () => existsSync(join(attempt, "disk0.copy")))
  return { snapshot, captor: record.captor }
}
