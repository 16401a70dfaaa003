import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { liveCaptureOfHost } from "@stillframe/capture-worker/host/live-capture-of-host"
import { savesLive } from "@stillframe/hypervisors/qemu/capture/live-save"
import { probeQemu } from "@stillframe/hypervisors/qemu/probe/probe"
import { userfaultfdObstacle } from "@stillframe/hypervisors/qemu/probe/userfaultfd"
import { createLogger } from "@stillframe/runtime/logger"
import { describe, expect, test } from "vitest"
import { live } from "../hypervisors/live-vm.ts"
import { heartbeat, never, qemu } from "../hypervisors/test-vm.ts"

const log = createLogger({ service: "test", level: "silent" })
const imagesDir = dirname(heartbeat)
const nobody = { uid: 64_055, gid: 64_055 }
/** Without it a trial is not even begun. */
const mayGuard = (await userfaultfdObstacle()) === undefined
const obstacle = process.getuid?.() === 0 ? await userfaultfdObstacle(nobody) : undefined

type Qemu = Parameters<typeof liveCaptureOfHost>[1]

async function found(binary: string): Promise<Qemu> {
  const { version, machines } = await probeQemu(binary, never)
  return { binary, version, machine: machines.q35, accel: "tcg" }
}

const plain = await found(qemu.binary)

/** A program that calls itself a QEMU that captures live, and does `does` when it is to run a VM. */
async function pretender(dir: string, does: string): Promise<Qemu> {
  const binary = join(dir, "qemu")
  await writeFile(binary, `#!/bin/sh\n${does}\n`)
  await chmod(binary, 0o755)
  return { binary, version: "10.0.2", machine: "pc-q35-10.0", accel: "tcg" }
}

async function dataFolder(): Promise<AsyncDisposable & { dataDir: string; trialsLeft(): Promise<string[]> }> {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-data-"))
  return {
    dataDir,
    trialsLeft: async () => (await readdir(dataDir)).filter((name) => name.startsWith("live-trial-")),
    [Symbol.asyncDispose]: () => rm(dataDir, { recursive: true }),
  }
}

test.skipIf(savesLive(plain.version))("a QEMU that is too old is never tried, only named", async () => {
  await using place = await dataFolder()

  const known = await liveCaptureOfHost({ ...place, imagesDir }, plain, log)

  expect(known.reason).toMatch(/^QEMU .+ can't save memory while its guest runs, that needs QEMU 10$/)
  expect(await readdir(place.dataDir)).toEqual([])
})

describe.skipIf(!live.live_capture)("a host whose QEMU captures live", () => {
  test("finds it out once, and again when its QEMU is started in another way", async () => {
    await using place = await dataFolder()
    const tools = await found(live.binary)
    const ask = (config: object, change: Partial<Qemu> = {}) =>
      liveCaptureOfHost({ ...place, imagesDir, ...config }, { ...tools, ...change }, log)

    const first = await ask({})
    const nothing = { imagesDir: join(place.dataDir, "nothing") }
    const second = await ask(nothing)
    const other = await ask(nothing, { machine: "pc-q35-8.0" })
    const third = await ask(nothing)

    expect([first, second]).toEqual([{ live_capture: true }, { live_capture: true }])
    expect([other, third]).toMatchObject([{ live_capture: false }, { live_capture: false }])
    expect(other.said).toContain("heartbeat.elf")
    expect(await place.trialsLeft()).toEqual([])
  })

  test("forgets what it can't read, and ends the trial of a worker that was killed", async () => {
    await using place = await dataFolder()
    await writeFile(join(place.dataDir, "live-capture.json"), '{"key":')
    await mkdir(join(place.dataDir, "live-trial-left", "source"), { recursive: true })
    const left = spawn("sleep", ["600"], { argv0: "guest=stillframe-live-trial-left" })
    await once(left, "spawn")
    const ended = once(left, "exit")

    const known = await liveCaptureOfHost({ ...place, imagesDir }, await found(live.binary), log)

    expect(known).toEqual({ live_capture: true })
    expect(await ended).toEqual([null, expect.any(String)])
    expect(await place.trialsLeft()).toEqual([])
  })
})

test.skipIf(obstacle === undefined)(
  "a QEMU whose user may not guard memory is not tried, and the reason says what to do",
  async () => {
    await using place = await dataFolder()
    const tools = { ...(await pretender(place.dataDir, "exit 1")), runAs: nobody }

    const known = await liveCaptureOfHost({ ...place, imagesDir }, tools, log)

    expect(known).toEqual({ live_capture: false, reason: obstacle })
    expect(obstacle).toMatch(/group 64055 may not open \/dev\/userfaultfd: .+start the capture-worker again$/)
    expect(await readdir(place.dataDir)).toEqual(["qemu"])
  },
)

test.skipIf(!mayGuard).each([
  ["ends at once", "exit 3", "status 3"],
  ["never answers", "exec sleep 600", "a trial did not end in 0.5 s"],
])("a trial whose QEMU %s is a reason not to offer it, and leaves nothing", async (_, does, reason) => {
  await using place = await dataFolder()
  const tools = { ...(await pretender(place.dataDir, does)), limitMs: 500 }

  const known = await liveCaptureOfHost({ ...place, imagesDir }, tools, log)

  expect(known).toMatchObject({ live_capture: false, reason: expect.stringContaining(reason) })
  expect(await place.trialsLeft()).toEqual([])
})

test.skipIf(!mayGuard)("where nothing can be tried at all, that is the reason", async () => {
  const dataDir = join(tmpdir(), "stillframe-there-is-no-such-folder")

  const known = await liveCaptureOfHost({ dataDir, imagesDir }, { ...plain, version: "10.0.2" }, log)

  expect(known).toMatchObject({ live_capture: false, reason: expect.stringContaining("could not be tried") })
})
