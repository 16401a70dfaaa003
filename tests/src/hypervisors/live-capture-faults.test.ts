import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir, readdir, readFile } from "node:fs/promises"
import { connect, createServer, type Socket } from "node:net"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { openDirectory } from "@stillframe/hypervisors/files/open-directory"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { copierVariable } from "@stillframe/hypervisors/qemu/capture/copiers"
import { setUpLiveSave, untilStateSaved } from "@stillframe/hypervisors/qemu/capture/live-save"
import { migrationEnd } from "@stillframe/hypervisors/qemu/capture/migration"
import { qemuHypervisor } from "@stillframe/hypervisors/qemu/hypervisor"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { ensureRunning, isUnderWay, migrationStatus } from "@stillframe/hypervisors/qemu/monitor/resume"
import { describe, expect, test } from "vitest"
import {
  LARGE_MIB,
  expectRunning,
  expectUnharmed,
  live,
  plainDisk,
  start,
  startLarge,
  status,
} from "./live-vm.ts"
import { capture, firstGap, ground, qemu, serial, type Ground, type TestVm } from "./test-vm.ts"

const run = promisify(execFile)
/** Between two looks at what QEMU does, and how many of them it may pass without doing anything. */
const lookMs = 5
const alikeMax = 10
const isRoot = process.getuid?.() === 0

describe.skipIf(!live.live_capture)("a live capture", () => {
  test.each(["paused", "resumed"] as const)(
    "that is cancelled when the VM is %s lets it run on, and the next one works",
    async (step) => {
      await using place = await ground()
      const vm = await startLarge(place, [await plainDisk(place)])
      const stop = new AbortController()
      const hook = { [step === "paused" ? "onPaused" : "afterResume"]: () => stop.abort() }

      const attempt = capture(place, vm, "memory", { mode: "live", signal: stop.signal, ...hook })

      await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
      expect(await readdir(place.root)).not.toContain("memory")
      await expectUnharmed(place, vm)
    },
  )

  test("that does not end in time is given up, and the VM has run on meanwhile", async () => {
    await using place = await ground()
    const vm = await start(place, { change: { memoryMib: 2 * LARGE_MIB } })

    const attempt = capture(place, vm, "memory", { mode: "live", pauseLimitMs: 300 })

    await expect(attempt).rejects.toMatchObject({
      code: "pause_limit_exceeded",
      message: expect.stringContaining("while the VM ran"),
    })
    expect(await readdir(place.root)).not.toContain("memory")
    await expectRunning(vm)
  })

  test.skipIf(!isRoot)("whose disk fills up tells so; the VM runs on and no file is left", async () => {
    await using place = await ground()
    const vm = await startLarge(place)
    const small = join(place.root, "small")
    await mkdir(small)
    await run("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", small])
    let resumed = 0
    try {
      const attempt = capture(place, vm, "small/memory", { mode: "live", afterResume: () => void resumed++ })

      await expect(attempt).rejects.toMatchObject({ code: "insufficient_storage" })
      expect(await readdir(small)).toEqual([])
      expect(resumed).toBe(1)
      await expectRunning(vm)
      expect(firstGap(serial(vm.dir))).toBeUndefined()
    } finally {
      await run("umount", [small])
    }
  })

  test("whose QEMU is killed in the middle reports it as gone and leaves no memory file", async () => {
    await using place = await ground()
    const vm = await startLarge(place)

    const attempt = capture(place, vm, "memory", {
      mode: "live",
      afterResume: () => void process.kill(vm.process.pid, "SIGKILL"),
    })

    await expect(attempt).rejects.toMatchObject({ code: "hypervisor_gone" })
    await expect.poll(async () => await processAlive(vm.process)).toBe(false)
    expect(await readdir(place.root)).not.toContain("memory")
  })

  test.each(["paused", "resumed"])(
    "whose captor is killed when the VM is %s leaves a VM that the takeover lets run, and that can be captured",
    async (step) => {
      await using place = await ground()
      const vm = await startLarge(place, [await plainDisk(place)])

      await killCaptorAt(step, place, vm)
      expect(await status(vm)).toMatchObject({ running: step === "resumed" })
      await withMonitor(vm.dir, "command.sock", async (monitor) => {
        await ensureRunning(monitor)
        expect(isUnderWay(await migrationStatus(monitor))).toBe(false)
      })

      await expectUnharmed(place, vm)
    },
  )

  test("whose captor dies while its copier hangs is ended by the takeover, though the VM may answer nobody", async () => {
    await using place = await ground()
    const vm = await startLarge(place)
    await killCaptorAt("resumed", place, vm, hangWithItsMonitor)

    await qemuHypervisor({ name: "qemu", ...qemu }).settle(vm.dir, { wasRunning: true })

    expect(await copiersOf(vm)).toEqual([])
    await expectUnharmed(place, vm)
  })

  test("whose copier hangs is given up at its limit, and frees the guest that waited for it", async () => {
    await using place = await ground()
    const vm = await startLarge(place)

    const attempt = capture(place, vm, "memory", {
      mode: "live",
      pauseLimitMs: 1000,
      afterResume: async () => await hangWithItsMonitor(vm),
    })

    await expect(attempt).rejects.toMatchObject({ code: "pause_limit_exceeded" })
    expect(await readdir(place.root)).not.toContain("memory")
    await expectUnharmed(place, vm)
  })

  test("that hangs before the guest goes on is cancelled by the takeover", async () => {
    await using place = await ground()
    const vm = await start(place)
    await using stalled = await stalledReader(vm.dir)
    await withMonitor(vm.dir, "command.sock", async (monitor) => {
      await setUpLiveSave(monitor)
      await monitor.execute("stop")
      const end = migrationEnd(monitor)
      const saved = untilStateSaved(monitor, end.promise)
      await Promise.all([stalled.connected, monitor.execute("migrate", { uri: "unix:stalled.sock" })])
      await saved
    })

    await withMonitor(vm.dir, "command.sock", async (monitor) => {
      expect(isUnderWay(await migrationStatus(monitor))).toBe(true)
      await ensureRunning(monitor)
      expect(await migrationStatus(monitor)).toBe("cancelled")
    })

    await expectUnharmed(place, vm)
  })
})

async function killCaptorAt(
  step: string,
  place: Ground,
  vm: TestVm,
  before?: (vm: TestVm) => Promise<void>,
): Promise<void> {
  const script = fileURLToPath(new URL("live-captor.ts", import.meta.url))
  const captor = spawn(process.execPath, [script, place.root, JSON.stringify(vm), step], {
    stdio: ["ignore", "pipe", "inherit"],
  })
  const exited = once(captor, "exit")
  try {
    await once(captor.stdout, "data")
    await before?.(vm)
  } finally {
    captor.kill("SIGKILL")
    await exited
  }
}

/**
 * The copier hangs, as on a network file system that does not answer, and QEMU's main loop waits for it: a
 * device of the guest writes to memory that is not saved yet. Then no monitor answers.
 */
async function hangWithItsMonitor(vm: TestVm): Promise<void> {
  const copiers = await copiersOf(vm)
  for (const pid of copiers) process.kill(pid, "SIGSTOP")
  let carriedOut = true
  // A page that is wanted is saved at once, as long as the socket takes it. The device's DMA ends by writing
  // 0 where there is 0, each time 16 MiB lower: the port wants an address with its highest byte first.
  for (let top = LARGE_MIB / 16 - 1; carriedOut && top > 0; top--)
    carriedOut = await isCarriedOut(vm, `o /w 0x518 ${top}`)
  expect([copiers.length, carriedOut]).toEqual([1, false])
}

/**
 * Sends a command for people, and waits until it is carried out, or QEMU does nothing any more, so that it
 * never will be. Not by `openMonitor`, which is patient.
 */
async function isCarriedOut(vm: TestVm, line: string): Promise<boolean> {
  const socket = connect(join(vm.dir, "watch.sock")).setEncoding("utf8")
  let said = ""
  socket.on("data", (text) => (said += String(text)))
  const command = { execute: "human-monitor-command", arguments: { "command-line": line } }
  socket.write(`{"execute": "qmp_capabilities"}${JSON.stringify(command)}`)
  try {
    let [last, alike]: [string | undefined, number] = [undefined, 0]
    while (said.split('"return"').length <= 2) {
      const now = await switchesOf(vm)
      alike = now !== undefined && now === last ? alike + 1 : 0
      if (alike === alikeMax) return false
      last = now
      await delay(lookMs)
    }
    return true
  } finally {
    socket.destroy()
  }
}

/**
 * How often each thread of QEMU has slept and gone on so far; undefined while one of them runs or waits for a
 * processor.
 */
async function switchesOf({ process: { pid } }: TestVm): Promise<string | undefined> {
  const threads = await readdir(`/proc/${pid}/task`)
  const states = await Promise.all(
    threads.map((id) => readFile(`/proc/${pid}/task/${id}/status`, "latin1").catch(() => "")),
  )
  if (states.some((state) => !/^State:\tS/m.test(state))) return undefined
  return states.map((state) => /^voluntary_ctxt_switches:.*/m.exec(state)?.[0]).join()
}

async function copiersOf(vm: TestVm): Promise<number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name))
  const environments = await Promise.all(
    pids.map(async (pid) => await readFile(`/proc/${pid}/environ`, "latin1").catch(() => "")),
  )
  return pids.filter((_, at) => environments[at]?.includes(`${copierVariable}=${vm.dir}\0`)).map(Number)
}

/** Accepts a save and never reads it. */
async function stalledReader(dir: string): Promise<AsyncDisposable & { connected: Promise<unknown> }> {
  const directory = openDirectory(dir)
  const server = createServer({ pauseOnConnect: true }).listen(`${directory.path}/stalled.sock`)
  const connected = once(server, "connection") as Promise<[Socket]>
  await once(server, "listening")
  return {
    connected,
    async [Symbol.asyncDispose]() {
      const [socket] = await connected
      socket.destroy()
      server.close()
      directory.close()
    },
  }
}
