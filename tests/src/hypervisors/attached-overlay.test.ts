import { chmod, readdir, readFile, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { commitLeftover } from "@stillframe/hypervisors/qemu/attached/overlay/commit-leftover"
import { expect, test } from "vitest"
import {
  attach,
  captureStranger,
  contentOf,
  expectRunning,
  homeOf,
  overlaysIn,
  startWithDisks,
  writeAsGuest,
} from "./stranger.ts"
import { ground, never, qemu } from "./test-vm.ts"

const isRoot = process.getuid?.() === 0
const nobody = { uid: 65_534, gid: 65_534 }
const KIB = 1024

test("an overlay is what the VM writes to while its disk is copied, and nothing of that is lost", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const home = await homeOf(place)
  const seen: string[] = []

  const captured = await captureStranger(place, stranger, vm, "payload", {
    onStep: async (step) => {
      seen.push(step)
      if (step !== "copied") return
      expect(await overlaysIn(place)).toHaveLength(2)
      expect(await readdir(home)).toEqual(["overlays.json"])
      await writeAsGuest(stranger, 0x22)
      expect((await readFile(join(place.root, "a.raw")))[0]).toBe(7)
    },
    afterResume: () => void seen.push("runs again"),
    beforeSecondPause: ({ wasRunning }) => void seen.push(`second pause, running: ${wasRunning}`),
    afterSecondPause: () => void seen.push("runs for good"),
  })

  const pivots = ["stopped", "pivoted", "pivoted", "unlinked"]
  expect(seen).toEqual([
    "staged",
    "frozen",
    "runs again",
    "copied",
    "committing",
    "ready",
    "second pause, running: true",
    ...pivots,
    "runs for good",
  ])
  expect((await readFile(join(captured.dir, "disk0.copy")))[0]).toBe(7)
  expect((await readFile(join(place.root, "a.raw")))[0]).toBe(0x22)
  expect(await readdir(home)).toEqual([])
})

test("a second stop of some milliseconds is all that the way back costs", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  let stoppedAt = 0
  let runsAgainAt = 0

  await captureStranger(place, stranger, vm, "payload", {
    onStep: (step) => {
      if (step === "stopped") stoppedAt = performance.now()
      if (step === "unlinked") runsAgainAt = performance.now()
    },
  })

  expect(runsAgainAt - stoppedAt).toBeLessThan(1000)
})

test("a capture refused right before the pause leaves no overlay and no record", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const refuse = (): never => {
    throw new StillframeError("lease_lost", "the lease is lost")
  }

  const attempt = captureStranger(place, stranger, vm, "payload", { beforePause: refuse })

  await expect(attempt).rejects.toThrow("the lease is lost")
  expect(await overlaysIn(place)).toEqual([])
  expect(await readdir(join(place.root, "home"))).toEqual([])
  expect((await captureStranger(place, stranger, vm, "again")).disks).toHaveLength(3)
})

test("a capture cancelled while it copies leads the VM back all the same", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const stop = new AbortController()
  const seen: string[] = []

  const attempt = captureStranger(place, stranger, vm, "payload", {
    signal: stop.signal,
    onStep: (step) => {
      if (step === "frozen") stop.abort()
      seen.push(step)
    },
    afterResume: () => void seen.push("runs again"),
  })

  await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
  expect(await overlaysIn(place)).toEqual([])
  expect(await readdir(join(place.root, "payload"))).toEqual([])
  expect(seen.slice(0, 4)).toEqual(["staged", "frozen", "runs again", "committing"])
  await expectRunning(stranger)
})

test("an overlay that nobody knows of is a conflict that says what to do, not overwritten", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  await writeFile(join(place.root, "a.raw.stillframe-overlay"), "somebody's last writes")

  await expect(captureStranger(place, stranger, vm, "payload")).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("qemu-img commit"),
  })
  expect(await readFile(join(place.root, "a.raw.stillframe-overlay"), "utf8")).toBe("somebody's last writes")
})

test.skipIf(!isRoot)("as root, another user's VM is captured, its overlay being that user's", async () => {
  await using place = await ground()
  await chmod(place.root, 0o755)
  const { uid, gid } = nobody
  const stranger = await startWithDisks(place, "q35", nobody)
  const vm = await attach(place, stranger, { users: { first: uid, last: uid } })
  let owner: number | undefined

  const captured = await captureStranger(place, stranger, vm, "payload", {
    onStep: async (step) => {
      if (step === "copied") owner = (await stat(join(place.root, "a.raw.stillframe-overlay"))).uid
    },
  })

  expect(owner).toBe(uid)
  expect(gid).toBe(vm.user.gid)
  expect(captured.disks).toHaveLength(3)
  expect(await overlaysIn(place)).toEqual([])
})

test("QEMU killed on its overlays: what the guest wrote is all there after the leftovers are committed", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const home = await homeOf(place)
  await writeAsGuest(stranger, 0x11)

  const attempt = captureStranger(place, stranger, vm, "payload", {
    onStep: async (step) => {
      if (step !== "copied") return
      await writeAsGuest(stranger, 0x22, 128)
      process.kill(stranger.process.pid, "SIGKILL")
    },
  })

  await expect(attempt).rejects.toMatchObject({ code: "hypervisor_gone" })
  // Its sockets close a moment before the process is gone.
  await expect.poll(() => processAlive(stranger.process)).toBe(false)
  expect(await overlaysIn(place)).toHaveLength(2)
  const completed = await commitLeftover(home, { qemuImg: qemu.qemuImg, signal: never })
  expect(completed).toEqual([join(place.root, "a.raw"), join(place.root, "upper.qcow2")])
  expect(await overlaysIn(place)).toEqual([])
  expect(await commitLeftover(home, { qemuImg: qemu.qemuImg, signal: never })).toEqual([])
  const content = await contentOf(place, join(place.root, "a.raw"), "raw")
  expect([content[0], content[128 * KIB], content[64 * KIB]]).toEqual([0x11, 0x22, 7])
})

test("a VM that its owner started again without the overlay: the two are not mixed", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const home = await homeOf(place)
  const attempt = captureStranger(place, stranger, vm, "payload", {
    onStep: async (step) => {
      if (step !== "copied") return
      await writeAsGuest(stranger, 0x22)
      process.kill(stranger.process.pid, "SIGKILL")
    },
  })
  await expect(attempt).rejects.toMatchObject({ code: "hypervisor_gone" })
  await expect.poll(() => processAlive(stranger.process)).toBe(false)
  await writeFile(join(place.root, "a.raw"), Buffer.alloc(1024 * KIB, 0x33))

  const commit = commitLeftover(home, { qemuImg: qemu.qemuImg, signal: never })

  await expect(commit).rejects.toMatchObject({ code: "conflict", message: expect.stringContaining("a.raw") })
  expect((await readFile(join(place.root, "a.raw")))[0]).toBe(0x33)
  expect(await overlaysIn(place)).toHaveLength(2)
})
