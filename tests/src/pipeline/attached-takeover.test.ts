import { mkdir } from "node:fs/promises"
import { uptime } from "node:os"
import { join } from "node:path"
import { readPauseRecord, writePauseRecord } from "@stillframe/capture-worker/pause/pause-record"
import { takeOver } from "@stillframe/capture-worker/pause/takeover"
import { expect, test } from "vitest"
import { asOwner, expectRunning, startStranger, type Stranger } from "../hypervisors/stranger.ts"
import { ground } from "../hypervisors/test-vm.ts"
import { deadProcess } from "./dead-process.ts"

const instanceId = "a23456789012345678901234"

test("an attached VM whose captor died in the pause runs again", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  await asOwner(stranger, (monitor) => monitor.execute("stop"))
  const home = await pausedBy(place.root, stranger, { wasRunning: true })

  expect(await takeOver(place.root, instanceId)).toBe("resumed")

  await expectRunning(stranger)
  expect(await readPauseRecord(home)).toBeUndefined()
})

test("an attached VM that its owner had paused stays paused", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  await asOwner(stranger, (monitor) => monitor.execute("stop"))
  await pausedBy(place.root, stranger, { wasRunning: false })

  expect(await takeOver(place.root, instanceId)).toBe("resumed")

  expect(await statusOf(stranger)).toBe("paused")
})

test("another VM behind the same socket is not touched", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)
  await asOwner(stranger, (monitor) => monitor.execute("stop"))
  const earlier = { ...stranger, process: await deadProcess() }
  const home = await pausedBy(place.root, earlier, { wasRunning: true })

  expect(await takeOver(place.root, instanceId)).toBe("gone")

  expect(await statusOf(stranger)).toBe("paused")
  expect(await readPauseRecord(home)).toBeUndefined()
})

async function pausedBy(
  dataDir: string,
  { controlSocket, process }: Stranger,
  { wasRunning }: { wasRunning: boolean },
): Promise<string> {
  const home = join(dataDir, "instances", instanceId)
  await mkdir(home, { recursive: true })
  await writePauseRecord(home, {
    clusterId: "a23456789012345678901235",
    instanceId,
    generation: 1,
    hypervisor: { name: "qemu", binary: "/usr/bin/qemu", qemuImg: "/usr/bin/qemu-img" },
    operationId: "a23456789012345678901236",
    token: "a23456789012345678901237",
    snapshotId: "a23456789012345678901238",
    captor: await deadProcess(),
    wasRunning,
    attached: { controlSocket, process },
    deadlineUptime: uptime() + 60,
    limitUptime: uptime() + 60,
  })
  return home
}

async function statusOf(stranger: Stranger): Promise<string> {
  const { status } = await asOwner(stranger, (monitor) => monitor.execute<{ status: string }>("query-status"))
  return status
}
