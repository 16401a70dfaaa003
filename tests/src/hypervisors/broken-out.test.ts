import { execFile } from "node:child_process"
import {
  chmod,
  chown,
  copyFile,
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises"
import { basename, join } from "node:path"
import { promisify } from "node:util"
import { readDisks, writeDisks, type Disk } from "@stillframe/hypervisors/disks/disks"
import { freezeRawDisks, keepRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import { linkFiles } from "@stillframe/hypervisors/files/link-files"
import { giveFiles, letReadLayer } from "@stillframe/hypervisors/files/vm-user-files"
import { readVmRecord, writeVmRecord } from "@stillframe/hypervisors/process/vm-record"
import { addOverlays } from "@stillframe/hypervisors/qemu/layers/layers"
import { launchQemu } from "@stillframe/hypervisors/qemu/process/launch"
import { describe, expect, test } from "vitest"
import { storeIn } from "./laid-disks.ts"
import { ground, heartbeat, heartbeatConfig, never, qemu, type Ground } from "./test-vm.ts"

const run = promisify(execFile)
const user = { uid: 64_055, gid: 64_055 }
const disk: Disk = {
  readonly: false,
  virtualSize: 1024,
  layers: [{ file: "disk0.raw", format: "raw" }],
  sources: [],
}

/** A file of root's that no other user may read. */
async function secretIn({ root }: Ground): Promise<string> {
  const path = join(root, "secret")
  await writeFile(path, "of somebody else", { mode: 0o600 })
  return path
}

// Whoever breaks out of a guest has its process's rights: its user's, to whom the VM's directory belongs.
describe("in the directory of a VM that was broken out of", () => {
  test.for(["a symbolic link", "a second name", "a pipe"])(
    "%s in a disk's place is not captured",
    async (what) => {
      await using place = await ground()
      const [dir, payload] = [await place.folder("vm"), await place.folder("payload")]
      const name = join(dir, "disk0.raw")
      if (what === "a symbolic link") await symlink(await secretIn(place), name)
      else if (what === "a second name") await link(await secretIn(place), name)
      else await run("mkfifo", [name])

      const stopped = keepRawDisks([disk], { dir, payload, store: storeIn(place), signal: never })
      await expect(stopped).rejects.toMatchObject({
        code: "hypervisor_failed",
        message: expect.stringContaining("disk0.raw in the VM's directory is a link or special file"),
      })
      const running = freezeRawDisks([disk], { dir, payload, signal: never })
      await expect(running).rejects.toMatchObject({ code: "hypervisor_failed" })
      expect(await readdir(payload)).toEqual([])
    },
  )

  test("a link that takes an overlay's name while it is made leads nowhere", async () => {
    await using place = await ground()
    const secret = await secretIn(place)
    const dir = await place.folder("vm")
    const quick = join(place.root, "qemu-img")
    const planting = `for name in disk0.1.qcow2 disk0.1.qcow2.half; do rm -f $name; ln -s ${secret} $name; done`
    await writeFile(quick, `#!/bin/sh\n${planting}\nexec ${qemu.qemuImg} "$@"\n`, { mode: 0o755 })
    const layers: Disk["layers"] = [{ file: "disk0.0.qcow2", format: "qcow2" }]
    await writeFile(join(dir, "disk0.0.qcow2"), "")

    await addOverlays([{ ...disk, layers }], { dir, qemuImg: quick, signal: never })

    expect(await readFile(secret, "utf8")).toBe("of somebody else")
  })

  test("what it says of its disks counts only where they lie in there", async () => {
    await using place = await ground()
    const secret = await secretIn(place)
    const dir = await place.folder("vm")
    const named = (file: string): Disk[] => [{ ...disk, layers: [{ file, format: "raw" }] }]

    await writeFile(join(dir, "disks.json"), JSON.stringify(named("../secret")))
    await expect(readDisks(dir, new Map())).rejects.toMatchObject({ code: "corrupted" })
    await writeDisks(dir, named(secret))
    expect(await readDisks(dir, new Map())).toEqual(named(secret))
    if (process.getuid?.() !== 0) return
    await chown(join(dir, "disks.json"), user.uid, user.gid)
    await expect(readDisks(dir, new Map())).rejects.toMatchObject({ code: "corrupted" })
    await writeDisks(dir, [disk])
    await chown(join(dir, "disks.json"), user.uid, user.gid)
    expect(await readDisks(dir, new Map())).toEqual([disk])
  })

  test("nothing is written to where a name in there leads", async () => {
    await using place = await ground()
    const secret = await secretIn(place)
    const dir = await place.folder("vm")
    for (const name of ["disks.json", "disks.json.new", "vm.json", "vm.json.new"])
      await symlink(secret, join(dir, name))

    await writeDisks(dir, [disk])
    const config = { memoryMib: 16, vcpus: 1, disks: [] }
    await writeVmRecord(dir, { config, process: { pid: 1, startTime: 1, bootId: "" } })

    expect(await readFile(secret, "utf8")).toBe("of somebody else")
    expect(await readDisks(dir, new Map())).toEqual([disk])
    expect((await readVmRecord(dir)).config).toEqual(config)
  })

  test("a link in a layer's place is not kept, whether it is linked or copied", async () => {
    await using place = await ground()
    const [dir, payload] = [await place.folder("vm"), await place.folder("payload")]
    const elsewhere = await mkdtemp("/dev/shm/stillframe-payload-")
    await symlink(await secretIn(place), join(dir, "disk0.base"))

    for (const to of [payload, elsewhere]) {
      const kept = linkFiles(["disk0.base"], dir, to, never)
      await expect(kept).rejects.toMatchObject({ code: "hypervisor_failed" })
      expect(await readdir(to)).toEqual([])
    }
    await rm(elsewhere, { recursive: true })
  })

  test.skipIf(process.getuid?.() !== 0)(
    "a name of another's file does not make it the VM's when the VM starts again",
    async () => {
      await using place = await ground()
      const secret = await secretIn(place)
      const dir = await place.folder("vm")
      await symlink(secret, join(dir, "led-there"))
      await link(secret, join(dir, "linked"))
      await copyFile(heartbeat, join(dir, "kernel"))
      const launch = { dir, config: await heartbeatConfig(), disks: [], identity: "stillframe-test-vm" }

      place.own(await launchQemu({ ...launch, binary: qemu.binary, runAs: user, signal: never }))

      expect((await stat(secret)).uid).toBe(0)
    },
  )
})

test.skipIf(process.getuid?.() !== 0)(
  "only a disk without a second name is given to the VM's user",
  async () => {
    await using place = await ground()
    const dir = await place.folder("vm")
    const [own, shared] = [join(dir, "own.raw"), join(dir, "shared.raw")]
    for (const path of [own, shared]) await writeFile(path, "")
    await link(shared, join(place.root, "a-snapshot's"))
    const vm = { dir, config: { memoryMib: 1, vcpus: 1, disks: [] } }

    for (const path of [own, shared]) await giveFiles({ ...vm, disks: [disk] }, () => basename(path), user)

    expect([(await stat(own)).uid, (await stat(shared)).uid]).toEqual([user.uid, 0])
  },
)

test.skipIf(process.getuid?.() !== 0)(
  "a caller's kernel that is no longer for all to read stays the caller's, and its VM boots from a copy",
  async () => {
    await using place = await ground()
    const [dir, kernel] = [join(place.root, "vm"), join(place.root, "kernel")]
    await mkdir(dir)
    await writeFile(kernel, "linux")
    await link(kernel, join(dir, "kernel"))
    await chmod(kernel, 0o600)
    const vm = { dir, config: { memoryMib: 1, vcpus: 1, kernel, disks: [] }, disks: [] }

    await giveFiles(vm, () => "", user)
    const given = await stat(join(dir, "kernel"))
    await giveFiles(vm, () => "", user)

    const callers = await stat(kernel)
    expect([callers.uid, callers.gid, callers.mode & 0o777, callers.nlink]).toEqual([0, 0, 0o600, 1])
    expect([given.uid, given.gid, given.mode & 0o777, given.size]).toEqual([0, 0, 0o444, 5])
    expect((await stat(join(dir, "kernel"))).ino).toBe(given.ino)
    expect(await readdir(dir)).toEqual(["kernel"])
    await rm(dir, { recursive: true })
  },
)

test.skipIf(process.getuid?.() !== 0)(
  "a layer that was sealed for the group of all VMs can be read by any VM, and nothing else of root's",
  async () => {
    await using place = await ground()
    const [layer, secret, writable] = [
      join(place.root, "layer"),
      join(place.root, "secret"),
      join(place.root, "writable"),
    ]
    for (const path of [layer, secret, writable]) await writeFile(path, "")
    await chown(layer, 0, user.gid)
    await chmod(layer, 0o440)
    await chmod(secret, 0o440)
    await chown(writable, 0, user.gid)
    await chmod(writable, 0o640)
    await symlink(layer, join(place.root, "link"))

    for (const path of [layer, secret, writable]) await letReadLayer(path)

    const modes = await Promise.all(
      [layer, secret, writable].map(async (path) => (await stat(path)).mode & 0o777),
    )
    expect(modes).toEqual([0o444, 0o440, 0o640])
    await expect(letReadLayer(join(place.root, "link"))).rejects.toMatchObject({ code: "ELOOP" })
  },
)
