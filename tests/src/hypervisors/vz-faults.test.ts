import { readdir, truncate, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { vzOn } from "@stillframe/hypervisors/vz/vmm"
import { expect, test } from "vitest"
import { mac } from "./mac.ts"
import { ground, never, pidsIn } from "./test-vm.ts"
import {
  fault,
  guest,
  impatient,
  launchOptions,
  machineOf,
  restoreOptions,
  save,
  startVz,
  vz,
} from "./vz-vm.ts"

test("a running VM can't be saved, and runs on", async () => {
  await using place = await ground()
  const vm = await startVz(place)
  const dir = await place.folder("saved")

  await expect(vm.control.save(dir, { signal: never })).rejects.toMatchObject({
    code: "hypervisor_failed",
    said: expect.stringContaining("vm must be paused before snapshot"),
  })

  expect(await readdir(dir)).toEqual([])
  expect(await vm.control.state()).toBe("running")
})

test("a directory that holds something is left as it is", async () => {
  await using place = await ground()
  const vm = await startVz(place)
  const { dir } = await save(place, vm)

  await expect(vm.control.save(dir, { signal: never })).rejects.toMatchObject({ code: "hypervisor_failed" })

  expect(await readdir(dir)).toHaveLength(2)
})

test("a save that was cancelled is none, though the shim went through with it", async () => {
  await using place = await ground()
  const vm = await startVz(place)
  await fault(vm, { "vm.snapshot": "slow" })
  await vm.control.pause()
  const dir = await place.folder("saved")
  const cancel = new AbortController()

  const saved = vm.control.save(dir, { signal: cancel.signal, onProgress: () => cancel.abort() })

  await expect(saved).rejects.toMatchObject({ code: "cancelled" })
  expect(await readdir(dir)).toEqual([])
})

test("a lost answer to a pause or a resume is none: the state tells", async () => {
  await using place = await ground()
  const vm = await startVz(place)
  const control = impatient.control(vm.dir, guest)
  await fault(vm, { "vm.pause": "lost", "vm.resume": "lost" })

  await control.pause()
  expect(await vm.control.state()).toBe("paused")
  await control.resume()

  expect(await vm.control.state()).toBe("running")
})

test("what another Mac has saved is refused, saying so, before a process is started", async () => {
  await using place = await ground()
  const saved = await save(place, await startVz(place))
  const options = await restoreOptions(place, saved.dir, "restored")
  const elsewhere = vzOn({ host: { ...mac, hardwareUuid: async () => "another" } })

  await expect(elsewhere.restore(options)).rejects.toMatchObject({
    code: "not_supported",
    message: expect.stringContaining("another Mac"),
  })

  expect(await readdir(options.dir)).not.toContain("vz-shim.log")
})

test.each(["missing", "{}", "{"])("a snapshot whose machine is not known (%s) is corrupted", async (left) => {
  await using place = await ground()
  const saved = await save(place, await startVz(place))
  const options = await restoreOptions(place, saved.dir, "restored")
  const dir = left === "missing" ? place.root : options.saved
  if (left !== "missing") await writeFile(join(dir, "machine.json"), left)

  await expect(vz.restore({ ...options, saved: dir })).rejects.toMatchObject({ code: "corrupted" })
})

test.each(["another identifier", "a file that was cut short", "more memory", "another disk"])(
  "with %s nothing is loaded, the framework's reason is told, and no process is left",
  async (what) => {
    await using place = await ground()
    const saved = await save(place, await startVz(place))
    const options = await restoreOptions(place, saved.dir, "restored")
    if (what === "another identifier") {
      await vz.stop(
        join(place.root, "other"),
        place.own(await vz.launch(await launchOptions(place, "other"))),
        { guestMs: 0, processMs: 5_000, signal: never },
      )
      const other = await machineOf(join(place.root, "other"))
      await writeFile(join(options.saved, "machine.json"), JSON.stringify(other))
    }
    if (what === "a file that was cut short") await truncate(join(options.saved, "machine-state.vzm"), 4_096)
    await writeFile(join(options.dir, "disk0.raw"), Buffer.alloc(512))
    const disk = { readonly: false, virtualSize: 512, layers: [rawLayer("disk0.raw")], sources: [] }

    const attempt = vz.restore({
      ...options,
      ...(what === "more memory" && { config: { ...guest, memoryMib: 32 } }),
      ...(what === "another disk" && { disks: [disk] }),
    })

    await expect(attempt).rejects.toMatchObject({
      code: "hypervisor_failed",
      said: expect.stringContaining("VZErrorDomain Code=12"),
    })
    expect(await pidsIn(options.dir)).toEqual([])
  },
)

test("a VM is run as no other user: that is for hosts that are not Macs", async () => {
  await using place = await ground()
  const options = await launchOptions(place, "vm", { runAs: { uid: 65_534, gid: 65_534 } })

  await expect(vz.launch(options)).rejects.toMatchObject({ code: "not_supported" })
})

test.each([
  ["without a kernel", { config: { memoryMib: 16, vcpus: 1, disks: [] } }],
  [
    "on a qcow2 disk",
    { disks: [{ readonly: false, virtualSize: 512, layers: [qcow2Layer("disk0.0.qcow2")], sources: [] }] },
  ],
])("a VM %s is not supported, and nothing is started", async (_, change) => {
  await using place = await ground()
  const options = await launchOptions(place, "vm", change)

  await expect(vz.launch(options)).rejects.toMatchObject({ code: "not_supported" })

  expect(await readdir(options.dir)).toEqual(["kernel"])
})

test("a shim that refuses its configuration is ended, and its last words are told", async () => {
  await using place = await ground()
  const disks = [{ readonly: true, virtualSize: 512, layers: [rawLayer("nowhere.raw")], sources: [] }]
  const options = await launchOptions(place, "vm", { disks })

  await expect(vz.launch(options)).rejects.toMatchObject({
    code: "hypervisor_failed",
    said: expect.stringContaining("disk image not found: nowhere.raw"),
  })

  expect(await pidsIn(options.dir)).toEqual([])
})

function rawLayer(file: string) {
  return { file, format: "raw" as const }
}

function qcow2Layer(file: string) {
  return { file, format: "qcow2" as const }
}
