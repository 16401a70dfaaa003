import { execFileSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { chmod, readdir, rmdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { bringIn } from "@stillframe/hypervisors/bring-in"
import { removeStaged, savePlace } from "@stillframe/hypervisors/firecracker/save-place"
import { firecracker } from "@stillframe/hypervisors/firecracker/vmm"
import { canRunAs } from "@stillframe/hypervisors/run-as"
import { scratchFolder } from "@stillframe/testing/scratch"
import { expect, test } from "vitest"
import { fakeFirecracker, guest, restoreVm, setFault, startVm } from "./firecracker-vm.ts"
import { firstGap, ground, never, serial, untilTicks, type Ground } from "./test-vm.ts"

const nobody = { uid: 65_534, gid: 65_534 }
const isRoot = process.getuid?.() === 0

const stagings: [string, (place: Ground) => Promise<string>][] = [
  ["on the same file system", async (place) => await place.folder("staging")],
  ["in memory, where the system has that", async () => await scratchFolder("stillframe-staging-")],
]

test.each(stagings)("a save is staged %s, and brought in once the guest runs again", async (_, stagingIn) => {
  await using place = await ground()
  const binary = await fakeFirecracker(place)
  const vm = await startVm(place, binary)
  const [payload, staging] = [await place.folder("payload"), await stagingIn(place)]
  await vm.control.pause()
  const printed = serial(vm.dir)

  const files = await vm.control.save(payload, { signal: never, staging })
  await vm.control.resume()
  expect(await readdir(payload)).toEqual([])
  expect(files.map(({ staged }) => staged)).toEqual([
    join(staging, "payload", "memory"),
    join(staging, "payload", "vmstate"),
  ])
  await bringIn(files, payload)

  await rmdir(staging)
  const fork = await restoreVm(place, binary, payload)
  await firecracker.begin(fork.dir, guest)
  await untilTicks(fork.dir, 3)
  expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
})

test("a staged save that fails leaves nothing in the staging directory", async () => {
  await using place = await ground()
  const vm = await startVm(place, await fakeFirecracker(place))
  const [payload, staging] = [await place.folder("payload"), await place.folder("staging")]
  await setFault(vm, { save: "enospc_memory" })
  await vm.control.pause()

  await expect(vm.control.save(payload, { signal: never, staging })).rejects.toMatchObject({
    code: "insufficient_storage",
  })

  expect(await readdir(staging)).toEqual([])
})

test("what a dead captor left staged is removed by the names of its save", async () => {
  await using place = await ground()
  const { dir, control } = await startVm(place, await fakeFirecracker(place))
  const [payload, staging] = [await place.folder("payload"), await place.folder("staging")]
  await control.pause()
  await control.save(payload, { signal: never, staging })

  await removeStaged({ vmDir: dir, dir: payload, staging })

  expect(await readdir(staging)).toEqual([])
})

test("a staging directory without room is passed over", async () => {
  await using place = await ground()
  const [vmDir, dir] = [await place.folder("vm"), await place.folder("payload")]

  const place1 = await savePlace({ vmDir, dir, staging: place.root, memoryMib: 16 })
  const place2 = await savePlace({ vmDir, dir, staging: place.root, memoryMib: 1024 ** 3 })

  expect([place1.staged, place2.staged]).toEqual([true, false])
})

test.skipIf(!isRoot)(
  "as root the VM runs as another user, who can read what it maps and no more",
  async (context) => {
    await using place = await ground()
    const binary = await fakeFirecracker(place)
    await chmod(place.root, 0o711)
    if (!(await canRunAs(binary, nobody, never))) context.skip()
    const vm = await startVm(place, binary, { runAs: nobody, disk: "x" })
    await chmod(place.root, 0o700)
    const payload = await place.folder("payload")
    await chmod(payload, 0o700)
    await vm.control.pause()
    const printed = serial(vm.dir)
    const files = await vm.control.save(payload, { signal: never })
    await vm.control.resume()
    await bringIn(files, payload)
    expect((await stat(join(payload, "memory"))).uid).toBe(0)
    expect((await readdir(vm.dir)).filter((name) => name.startsWith("saving"))).toEqual([])
    execFileSync("cp", [join(vm.dir, "disk0.raw"), payload])

    await chmod(place.root, 0o711)
    const fork = await restoreVm(place, binary, payload, { runAs: nobody })
    await firecracker.begin(fork.dir, guest)
    await untilTicks(fork.dir, 3)

    expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
    expect(readFileSync(`/proc/${fork.process.pid}/status`, "utf8")).toMatch(/Uid:\s65534\s65534\s65534/)
    const memory = await stat(join(fork.dir, "saved", "memory"))
    expect([memory.uid, memory.mode & 0o777]).toEqual([0, 0o440])
  },
)
