import { existsSync } from "node:fs"
import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { bringIn } from "@stillframe/hypervisors/file-vmm/bring-in"
import { removeStaged, savePlace } from "@stillframe/hypervisors/file-vmm/save-place"
import { hypervisorOf } from "@stillframe/hypervisors/hypervisor-of"
import { describe, expect, test } from "vitest"
import { captureHosted, failSaves, forkHosted, hosted, hostedTools, launchHosted } from "./hosted-vm.ts"
import { firstGap, ground, never, serial, ticks, untilTicks } from "./test-vm.ts"

/** A folder in memory, where the system has that. */
async function inMemory(): Promise<AsyncDisposable & { folder: string }> {
  const folder = await mkdtemp(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "stillframe-staging-"))
  return { folder, [Symbol.asyncDispose]: () => rm(folder, { recursive: true }) }
}

describe.each(hosted)("a save of %s", (name) => {
  test("is written to the staging directory, and brought in once the guest runs again", async () => {
    await using place = await ground()
    await using memory = await inMemory()
    const staging = memory.folder
    const tools = { ...(await hostedTools(name, place.root)), staging }
    const vm = await launchHosted(place, tools)
    const payload = await place.folder("payload")
    let printed = ""
    let staged: string[] = []

    const captured = await captureHosted(vm, payload, {
      onPaused: () => void (printed = serial(vm.dir)),
      beforePause: async () => void (staged = await readdir(staging)),
    })

    expect(staged).toEqual(["saving-payload.32"])
    expect(await readdir(staging)).toEqual([])
    expect((await readdir(payload)).toSorted()).toEqual(captured.files.map((file) => file.name).toSorted())
    const fork = await forkHosted(place, { ...vm, tools }, { payload, captured })
    expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
  })

  test("that fails leaves nothing in the staging directory", async () => {
    await using place = await ground()
    await using memory = await inMemory()
    const staging = memory.folder
    const vm = await launchHosted(place, { ...(await hostedTools(name, place.root)), staging })
    const payload = await place.folder("payload")
    await failSaves(vm, name, "cut_memory")

    await expect(captureHosted(vm, payload)).rejects.toMatchObject({ code: "hypervisor_failed" })

    expect([await readdir(staging), await readdir(payload)]).toEqual([[], []])
  })

  test("for which the tmpfs has the room no more by then is made without it, and the VM ran in between", async () => {
    await using place = await ground()
    const staging = await place.folder("staging")
    const vm = await launchHosted(place, { ...(await hostedTools(name, place.root)), staging })
    const payload = await place.folder("payload")
    const staged: boolean[] = []
    await failSaves(vm, name, "full")

    await captureHosted(vm, payload, {
      beforePause: async () => {
        staged.push((await readdir(staging)).length > 0)
        expect(await vm.control.state()).toBe("running")
        if (staged.length === 2) await rm(join(vm.dir, "fault.json"))
      },
    })

    expect(staged).toEqual([true, false])
    expect([await readdir(staging), await readdir(payload)]).toEqual([[], expect.arrayContaining(["memory"])])
    await untilTicks(vm.dir, 3, ticks(serial(vm.dir)).length)
  })

  test("whose captor died is removed when the VM is put back", async () => {
    await using place = await ground()
    await using memory = await inMemory()
    const staging = memory.folder
    const tools = { ...(await hostedTools(name, place.root)), staging }
    const vm = await launchHosted(place, tools)
    const dir = await place.folder("payload/saving-token")
    const left = await savePlace({ vmDir: vm.dir, dir, staging, memoryMib: 32 })
    await savePlace({ vmDir: vm.dir, dir: join(dir, "../saving-another"), staging, memoryMib: 32 })
    await mkdir(join(vm.dir, "saving-token"))
    await vm.control.pause()
    await vm.control.save(left.path, { signal: never })

    await (await hypervisorOf(tools)).settle(vm.dir, { wasRunning: true, payload: "token" })

    expect(await readdir(staging)).toEqual(["saving-another.32"])
    expect(await readdir(vm.dir)).not.toContain("saving-token")
    expect(await vm.control.state()).toBe("running")
  })
})

test("a tmpfs is passed over where what others were promised leaves too little", async () => {
  await using place = await ground()
  const [vmDir, payload, staging] = [
    await place.folder("vm"),
    await place.folder("payload"),
    await place.folder("staging"),
  ]
  const placeOf = (name: string, memoryMib: number) =>
    savePlace({ vmDir, dir: join(payload, name), staging, memoryMib })
  const huge = 1024 ** 3

  const alone = await placeOf("saving-a", 16)
  const tooLarge = await placeOf("saving-b", huge)
  await mkdir(join(staging, `saving-c.${huge}`))
  const beside = await placeOf("saving-d", 16)

  expect([alone.staged, tooLarge.staged, beside.staged]).toEqual([true, false, false])
  expect((await readdir(staging)).toSorted()).toEqual(["saving-a.16", `saving-c.${huge}`])
  expect((await readdir(payload)).toSorted()).toEqual(["saving-b", "saving-d"])
})

test.each(["on this file system", "in memory"])(
  "a name that leads elsewhere (%s) is not brought in",
  async (where) => {
    await using place = await ground()
    await using memory = await inMemory()
    const from = where === "in memory" ? memory.folder : await place.folder("from")
    const [secret, to] = [join(place.root, "secret"), join(place.root, "memory")]
    await writeFile(secret, "of the host", { mode: 0o640 })
    await symlink(secret, join(from, "memory"))

    await expect(bringIn(join(from, "memory"), to)).rejects.toMatchObject({ code: "hypervisor_failed" })

    expect(existsSync(to)).toBe(false)
    expect((await stat(secret)).mode & 0o777).toBe(0o640)
  },
)

test("what stands in the place of a staged save is removed, and nothing that it leads to", async () => {
  await using place = await ground()
  const [vmDir, other] = [await place.folder("vm"), await place.folder("other")]
  await writeFile(join(other, "memory"), "of another VM")
  await symlink(other, join(vmDir, "saving-a"))
  await mkdir(join(vmDir, "saving-b"))
  await symlink(other, join(vmDir, "saving-b", "memory"))

  for (const name of ["saving-a", "saving-b", "saving-c"]) await removeStaged({ vmDir, name })

  expect([await readdir(vmDir), await readdir(other)]).toEqual([[], ["memory"]])
})
