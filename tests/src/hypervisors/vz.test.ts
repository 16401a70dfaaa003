import { readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { keepRawDisks, placeRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { vz as hostsOwn, vzOn } from "@stillframe/hypervisors/vz/vmm"
import { expect, test } from "vitest"
import { layDisks, storeIn } from "./laid-disks.ts"
import { mac } from "./mac.ts"
import { firstGap, ground, never, qemu, serial, ticks, untilTicks } from "./test-vm.ts"
import {
  fakeShim,
  fault,
  guest,
  launchOptions,
  machineOf,
  restored,
  restoreOptions,
  save,
  startVz,
  vz,
} from "./vz-vm.ts"

console.warn("vz: on the fake shim only, since no Mac is at hand")

test("a launched guest runs, under an identifier and an address that are kept", async () => {
  await using place = await ground()

  const vm = await startVz(place)

  expect(await vm.control.state()).toBe("running")
  expect(firstGap(serial(vm.dir))).toBeUndefined()
  expect(await machineOf(vm.dir)).toEqual({
    machine_identifier: expect.stringMatching(/^YnBsaXN0/),
    mac: expect.stringMatching(/^[0-9a-f][26ae](:[0-9a-f]{2}){5}$/),
    host: expect.stringMatching(/^[0-9a-f]{32}$/),
    system: "23.6.0",
  })
})

test("no two launches are the same machine", async () => {
  await using place = await ground()
  const first = place.own(await vz.launch(await launchOptions(place, "first")))
  const second = place.own(await vz.launch(await launchOptions(place, "second")))

  const machines = await Promise.all(["first", "second"].map(async (dir) => machineOf(join(place.root, dir))))

  expect(first.pid).not.toBe(second.pid)
  expect(machines[0]?.["machine_identifier"]).not.toBe(machines[1]?.["machine_identifier"])
  expect(machines[0]?.["mac"]).not.toBe(machines[1]?.["mac"])
})

test("what is saved is one opaque file and the machine that it is of, and the VM stays paused", async () => {
  await using place = await ground()
  const vm = await startVz(place)

  const { dir, files } = await save(place, vm)

  expect(files).toEqual([
    { name: "machine-state.vzm", role: "state" },
    { name: "machine.json", role: "state" },
  ])
  expect((await readdir(dir)).toSorted()).toEqual(["machine-state.vzm", "machine.json"])
  expect(await machineOf(dir)).toEqual(await machineOf(vm.dir))
  expect(await vm.control.state()).toBe("paused")
})

test("a save tells how far it is", async () => {
  await using place = await ground()
  const vm = await startVz(place)
  await fault(vm, { "vm.snapshot": "slow" })
  await vm.control.pause()
  const told: number[] = []

  await vm.control.save(await place.folder("saved"), {
    signal: never,
    onProgress: (bytes) => void told.push(bytes),
  })

  expect(told.length).toBeGreaterThan(0)
  expect(Math.min(...told)).toBeGreaterThan(0)
})

test("forks go on beside their source, as the same machine with the same address", async () => {
  await using place = await ground()
  const vm = await startVz(place)
  const saved = await save(place, vm)
  await vm.control.resume()

  const forks = await Promise.all(["one", "two"].map((name) => restored(place, saved.dir, name)))

  for (const fork of forks) {
    expect(firstGap(saved.printed + serial(fork.dir))).toBeUndefined()
    expect(await machineOf(fork.dir)).toEqual(await machineOf(vm.dir))
  }
  await untilTicks(vm.dir, 3, ticks(saved.printed).length)
})

test("a fork goes on with disks of its own", async () => {
  await using place = await ground()
  const path = join(place.root, "callers.raw")
  await writeFile(path, Buffer.alloc(4_096, 7))
  const callers = [false, true].map((readonly) => ({ path, format: "raw" as const, readonly }))
  const { disks } = await layDisks(place, callers)
  const linking = { store: storeIn(place), signal: never }
  const vm = await startVz(place, { disks })
  const saved = await save(place, vm)
  await keepRawDisks(disks, { dir: vm.dir, payload: saved.dir, ...linking })
  await vm.control.resume()

  const options = await restoreOptions(place, saved.dir, "fork", { disks })
  await placeRawDisks(disks, { payload: saved.dir, dir: options.dir, qemuImg: qemu.qemuImg, ...linking })
  place.own(await vz.restore(options))
  await vz.begin(options.dir, guest)

  await untilTicks(options.dir, 3)
  expect(firstGap(saved.printed + serial(options.dir))).toBeUndefined()
})

test.each([
  ["presses the power button, and the guest ends", {}],
  ["ends the shim of a guest that does not listen", { "vm.power-button": "ignore" }],
  ["kills a shim that answers nothing", { "vm.power-button": "refuse", "vmm.shutdown": "refuse" }],
])("a stop %s", async (_, faults) => {
  await using place = await ground()
  const vm = await startVz(place)
  await fault(vm, faults)

  await vz.stop(vm.dir, vm.process, { guestMs: 500, processMs: 200, signal: never })

  expect(await processAlive(vm.process)).toBe(false)
})

test("a Mac with the shim says what it can do", async () => {
  await using place = await ground()

  const can = await vz.probe(await fakeShim(place), never)

  expect(can).toMatchObject({
    version: "23.6.0",
    kinds: ["Standby", "Stopped"],
    disk_freeze: "reflink",
    fork: true,
    attach: false,
    compressible_memory: false,
    live_capture: false,
  })
})

test.each([
  ["Linux", { platform: "linux", release: "6.12.0" } as const],
  ["an Intel Mac", { arch: "x64" } as const],
  ["macOS 13", { release: "22.6.0" } as const],
])("%s has no vz: it says why, whatever it is asked to start", async (_, change) => {
  await using place = await ground()
  const elsewhere = vzOn({ host: { ...mac, ...change } })
  const options = await launchOptions(place, "vm")
  const refusal = {
    code: "hypervisor_unavailable",
    message: expect.stringContaining("needs macOS 14 or later on Apple silicon"),
  }

  await expect(elsewhere.probe(options.binary, never)).rejects.toMatchObject(refusal)
  await expect(elsewhere.launch(options)).rejects.toMatchObject(refusal)
  await expect(elsewhere.restore({ ...options, saved: place.root })).rejects.toMatchObject(refusal)
})

test.skipIf(process.platform === "darwin")(
  "this host, which is no Mac, is found out without being told",
  async () => {
    await using place = await ground()

    await expect(hostsOwn.probe(await fakeShim(place), never)).rejects.toMatchObject({
      code: "hypervisor_unavailable",
    })
  },
)

test.each(["/nowhere", "/bin/false", "/bin/true", "/"])(
  "a Mac where %s is said to be the shim names the setting",
  async (binary) => {
    await expect(vz.probe(binary, never)).rejects.toMatchObject({
      code: "hypervisor_unavailable",
      message: expect.stringContaining("VZ_SHIM_BINARY"),
    })
  },
)
