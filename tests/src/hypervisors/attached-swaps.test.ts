import { execFile } from "node:child_process"
import { readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { readDisks, writeDisks } from "@stillframe/hypervisors/disks/disks"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { commitLeftover } from "@stillframe/hypervisors/qemu/attached/overlay/commit-leftover"
import { copyDisks } from "@stillframe/hypervisors/qemu/attached/overlay/paused-freeze"
import { expect, test } from "vitest"
import { attach, captureStranger, expectRunning, homeOf, overlaysIn, startWithDisks } from "./stranger.ts"
import { ground, never, qemu, type Ground } from "./test-vm.ts"

const run = promisify(execFile)
const replaced = {
  code: "conflict",
  message: expect.stringContaining("a.raw is no longer the file that the VM uses"),
}

// The owner of an attached VM, or a guest that has escaped, may give a disk's name to anything between our
// look and our use.

interface Swapped {
  /** Gives the disk its name back. */
  back(): Promise<void>
}

async function swap(
  { root }: Ground,
  name: string,
  what: "a symbolic link" | "a pipe" | "another file",
): Promise<Swapped> {
  const [path, kept] = [join(root, name), join(root, `${name}.kept`)]
  await rename(path, kept)
  const other = what === "another file" ? path : join(root, "secret")
  if (what === "a pipe") await run("mkfifo", [path])
  else await writeFile(other, "of somebody else", { mode: 0o600 })
  if (what === "a symbolic link") await symlink(other, path)
  return {
    async back() {
      await rm(path)
      await rename(kept, path)
    },
  }
}

test("a link that takes a disk's name before it is copied is not copied, and the VM is led back", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  let swapped: Swapped | undefined

  const attempt = captureStranger(place, stranger, vm, "payload", {
    onStep: async (step) => {
      if (step === "frozen") swapped = await swap(place, "a.raw", "a symbolic link")
      if (step === "committing") await swapped?.back()
    },
  })

  await expect(attempt).rejects.toMatchObject(replaced)
  expect((await readdir(join(place.root, "payload"))).filter((name) => name.endsWith(".copy"))).toEqual([])
  await expectRunning(stranger)
  expect(await overlaysIn(place)).toEqual([])
})

test.for(["a symbolic link", "a pipe", "another file"] as const)(
  "%s in the place of a disk is not copied",
  async (what) => {
    await using place = await ground()
    const path = join(place.root, "a.raw")
    await writeFile(path, "the disk")
    const { dev, ino } = await stat(path)
    const disk = { path, identity: `${dev}:${ino}`, format: "raw", readonly: false } as const
    const copied = { ...disk, node: "disk0", virtualSize: 512, backing: [] }
    const dir = await place.folder("payload")
    const swapped = await swap(place, "a.raw", what)

    await expect(copyDisks([copied], { dir, signal: never })).rejects.toMatchObject(replaced)
    expect(await readdir(dir)).toEqual([])
    await swapped.back()
    await copyDisks([copied], { dir, signal: never })
    expect(await readFile(join(dir, "disk0.copy"), "utf8")).toBe("the disk")
  },
)

test("an overlay of a VM that has ended is not written to where a link in its disk's place leads", async () => {
  await using place = await ground()
  const stranger = await startWithDisks(place)
  const vm = await attach(place, stranger)
  const home = await homeOf(place)
  const attempt = captureStranger(place, stranger, vm, "payload", {
    onStep: (step) => void (step === "copied" && process.kill(stranger.process.pid, "SIGKILL")),
  })
  await expect(attempt).rejects.toMatchObject({ code: "hypervisor_gone" })
  await expect.poll(() => processAlive(stranger.process)).toBe(false)
  const path = join(place.root, "a.raw")
  await rename(path, join(place.root, "elsewhere.raw"))
  await symlink("elsewhere.raw", path)

  const commit = commitLeftover(home, { qemuImg: qemu.qemuImg, signal: never })

  await expect(commit).rejects.toMatchObject({ code: "conflict" })
  expect(await overlaysIn(place)).toHaveLength(2)
  await rm(path)
  await rename(join(place.root, "elsewhere.raw"), path)
  expect(await commitLeftover(home, { qemuImg: qemu.qemuImg, signal: never })).toHaveLength(2)
})

test("a link in the place of a VM's overlay is not read", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", join(place.root, "other.qcow2"), "1M"])
  await symlink(join(place.root, "other.qcow2"), join(dir, "disk0.0.qcow2"))
  await writeDisks(dir, [{ readonly: false, virtualSize: 1024 ** 2, layers: [], sources: [] }])

  const read = readDisks(dir, new Map([[0, 0]]))

  await expect(read).rejects.toMatchObject({ code: "hypervisor_failed" })
})
