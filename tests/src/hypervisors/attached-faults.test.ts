import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdir } from "node:fs/promises"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import type { AttachedVm } from "@stillframe/hypervisors/attached"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { commitLeftover } from "@stillframe/hypervisors/qemu/attached/overlay/commit-leftover"
import type { OverlayStep } from "@stillframe/hypervisors/qemu/attached/overlay/merge-overlays"
import { resumeAttached, settleAttached } from "@stillframe/hypervisors/qemu/attached/take-over"
import { expect, test } from "vitest"
import {
  asOwner,
  attach,
  captureStranger,
  contentOf,
  expectRunning,
  homeOf,
  overlaysIn,
  startStranger,
  startWithDisks,
  writeAsGuest,
  type Stranger,
} from "./stranger.ts"
import { ground, never, qemu, type Ground } from "./test-vm.ts"

const KIB = 1024
const tools = { qemuImg: qemu.qemuImg, signal: never }
/** In the order in which a capture takes them. */
const steps: OverlayStep[] = [
  "staged",
  "frozen",
  "copied",
  "committing",
  "ready",
  "stopped",
  "pivoted",
  "unlinked",
]
const pauses: readonly OverlayStep[] = ["frozen", "stopped", "pivoted", "unlinked"]

test.each(steps)(
  "a captor killed when it has %s: the VM goes on, is led back, and nothing its guest wrote is lost",
  async (step) => {
    await using place = await ground()
    const { stranger, vm, home, second } = await killCaptorAt(place, step)

    await resumeAttached({ controlSocket: vm.controlSocket, home })
    await expectRunning(stranger)
    await writeAsGuest(stranger, 0x33, 256)
    await settleAttached({ controlSocket: vm.controlSocket, home }, {})
    await writeAsGuest(stranger, 0x44, 384)

    expect(await overlaysIn(place)).toEqual([])
    expect(await readdir(home)).toEqual([])
    expect(await bytesOf(place)).toEqual([0x11, second, 0x33, 0x44])
    await expectRunning(stranger)
    const next = await captureStranger(place, stranger, vm, "next")
    expect(next.disks).toHaveLength(3)
  },
)

test.each(steps)(
  "captor and QEMU killed when the captor has %s: the owner's file is complete after the commit",
  async (step) => {
    await using place = await ground()
    const { stranger, home, second } = await killCaptorAt(place, step)

    await kill(stranger)
    await commitLeftover(home, tools)

    expect(await overlaysIn(place)).toEqual([])
    expect(await readdir(home)).toEqual([])
    expect(await bytesOf(place)).toEqual([0x11, second, 7, 7])
  },
)

test.each(pauses)(
  "QEMU killed between the takeover from %s and the way back: what the guest wrote over is not undone",
  async (step) => {
    await using place = await ground()
    const { stranger, vm, home } = await killCaptorAt(place, step)

    await resumeAttached({ controlSocket: vm.controlSocket, home })
    await writeAsGuest(stranger, 0x33, 128)
    await kill(stranger)
    await commitLeftover(home, tools)

    expect(await bytesOf(place)).toEqual([0x11, 0x33, 7, 7])
  },
)

test("the next capture leads the VM back from its predecessor's overlays by itself", async () => {
  await using place = await ground()
  const { stranger, vm } = await killCaptorAt(place, "copied")

  const captured = await captureStranger(place, stranger, vm, "next")

  const copy = await contentOf(place, join(captured.dir, "disk0.copy"), "raw")
  expect([copy[0], copy[128 * KIB]]).toEqual([0x11, 0x22])
  expect(await overlaysIn(place)).toEqual([])
})

test("leftovers of a VM that runs are not committed behind its back", async () => {
  await using place = await ground()
  const { home } = await killCaptorAt(place, "copied")

  await expect(commitLeftover(home, tools)).rejects.toMatchObject({ code: "conflict" })

  expect(await overlaysIn(place)).toHaveLength(2)
})

test("another QEMU that answers on the same socket does not make the overlays go", async () => {
  await using place = await ground()
  const { stranger, vm, home } = await killCaptorAt(place, "copied")
  await kill(stranger)
  await startStranger(place, { dir: stranger.dir })

  await expect(settleAttached({ controlSocket: vm.controlSocket, home }, {})).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("qemu-img commit"),
  })
  await expect(resumeAttached({ controlSocket: vm.controlSocket, home })).rejects.toMatchObject({
    code: "conflict",
  })

  expect(await overlaysIn(place)).toHaveLength(2)
  expect(await commitLeftover(home, tools)).toHaveLength(2)
  expect(await bytesOf(place)).toEqual([0x11, 0x22, 7, 7])
})

/**
 * A VM with 0x11 written before its capture, and `second` after the copying or, if it never came to that,
 * after its captor's death.
 */
async function killCaptorAt(
  place: Ground,
  last: OverlayStep,
): Promise<{ stranger: Stranger; vm: AttachedVm; home: string; second: number }> {
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const home = await homeOf(place)
  await writeAsGuest(stranger, 0x11)
  const script = fileURLToPath(new URL("step-by-step.ts", import.meta.url))
  const args = [script, place.root, JSON.stringify(vm), await place.folder("payload")]
  const captor = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] })
  const exited = once(captor, "exit")
  let second = 7
  for await (const step of createInterface({ input: captor.stdout })) {
    if (step === "copied" || (step === "staged" && last === "staged")) {
      second = 0x22
      await writeAsGuest(stranger, second, 128)
    }
    if (step === last) captor.kill("SIGKILL")
    else captor.stdin.write("\n")
  }
  expect((await exited)[1]).toBe("SIGKILL")
  const { running } = await asOwner(stranger, async (monitor) => {
    return await monitor.execute<{ running: boolean }>("query-status")
  })
  expect(running).toBe(!pauses.includes(last))
  return { stranger, vm, home, second }
}

async function kill({ process: identity }: Stranger): Promise<void> {
  process.kill(identity.pid, "SIGKILL")
  await expect.poll(async () => await processAlive(identity)).toBe(false)
}

/** What the first disk's own file has at the places that these tests write to. */
async function bytesOf(place: Ground): Promise<(number | undefined)[]> {
  const content = await contentOf(place, join(place.root, "a.raw"), "raw")
  return [0, 128, 256, 384].map((offset) => content[offset * KIB])
}
