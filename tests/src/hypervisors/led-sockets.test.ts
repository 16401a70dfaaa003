import { chmod, link, readdir, rename, rm, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { openControlSocket } from "@stillframe/hypervisors/qemu/attached/control-socket"
import { withMonitor, type QmpEvent } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { watchQemu } from "@stillframe/hypervisors/qemu/monitor/watch"
import { launchQemu } from "@stillframe/hypervisors/qemu/process/launch"
import { describe, expect, test } from "vitest"
import { hosted, hostedTools, launchHosted } from "./hosted-vm.ts"
import { attach, captureStranger, startStranger } from "./stranger.ts"
import { capture, ground, never, qemu, startHeartbeat, type Ground, type TestVm } from "./test-vm.ts"

const isRoot = process.getuid?.() === 0
/** Another user's socket needs root; one user's VMs are told apart by links only. */
const users = [2_100_000_001, 2_100_000_002].map((uid) => (isRoot ? { runAs: { uid, gid: uid } } : {}))
const ways = isRoot ? (["a symbolic link", "a second name"] as const) : (["a symbolic link"] as const)

const notItsOwn = (name: string) => ({
  code: "hypervisor_untrusted",
  message: expect.stringMatching(`^${name} in the VM's directory is not the VM's own socket; its guest may`),
})

/** Does what a process that was broken out of may try: its socket becomes a name of the victim's. */
async function lead(
  name: string,
  { from, to, by }: { from: string; to: string; by: (typeof ways)[number] },
): Promise<void> {
  await rename(join(from, name), join(from, `real-${name}`))
  await (by === "a symbolic link" ? symlink : link)(join(to, name), join(from, name))
}

async function twoVms(place: Ground): Promise<readonly [TestVm, TestVm]> {
  return [
    await startHeartbeat(place, { dir: await place.folder("one"), ...users[0] }),
    await startHeartbeat(place, { dir: await place.folder("victim"), ...users[1] }),
  ]
}

test.for(ways)("%s in a monitor's place does not have another VM captured", async (by) => {
  await using place = await ground()
  const [one, victim] = await twoVms(place)
  await lead("command.sock", { from: one.dir, to: victim.dir, by })
  const events: QmpEvent[] = []

  await withMonitor(victim.dir, "watch.sock", async (monitor) => {
    monitor.subscribe((event) => events.push(event))
    await expect(capture(place, one, "memory")).rejects.toMatchObject(notItsOwn("command.sock"))
    // Answered after any event of before.
    await monitor.execute("query-status")
  })

  expect(events).toEqual([])
  expect(await readdir(place.root)).not.toContain("memory")
})

test.for(["command.sock", "watch.sock"])(
  "a VM that is watched is not believed once its %s leads elsewhere",
  async (name) => {
    await using place = await ground()
    const [one, victim] = await twoVms(place)
    const watch = await watchQemu(one.dir)
    try {
      expect(await watch.look()).toBeUndefined()
      await lead(name, { from: one.dir, to: victim.dir, by: "a symbolic link" })

      await expect(watch.look()).rejects.toMatchObject(notItsOwn(name))
      await rm(join(one.dir, name))
      expect(await watch.look()).toBeUndefined()
    } finally {
      watch.close()
    }
  },
)

test("links that a VM left in its sockets' places do not keep it from starting", async () => {
  await using place = await ground()
  const victim = await startHeartbeat(place, { dir: await place.folder("victim"), ...users[1] })
  const { config } = victim
  const dir = await place.folder("one")
  await symlink(join(victim.dir, "kernel"), join(dir, "kernel"))
  for (const name of ["command.sock", "watch.sock"]) await symlink(join(victim.dir, name), join(dir, name))

  const launch = { dir, config, disks: [], binary: qemu.binary, identity: "stillframe-test-one" }
  place.own(await launchQemu({ ...launch, signal: never }))

  const started = await withMonitor(dir, "command.sock", (monitor) => monitor.execute("query-status"))
  expect(started).toMatchObject({ running: false })
})

describe.each(hosted)("the API of %s", (name) => {
  test.for(ways)("is not spoken to through %s", async (by) => {
    await using place = await ground()
    await using other = await ground()
    await chmod(place.root, 0o755)
    const tools = await hostedTools(name, place.root)
    const one = await launchHosted(place, { ...tools, ...users[0] })
    const victim = await launchHosted(other, { ...tools, ...users[1] })
    await lead("api.sock", { from: one.dir, to: victim.dir, by })

    await expect(one.control.pause()).rejects.toMatchObject(notItsOwn("api.sock"))
    await expect(one.control.state()).rejects.toMatchObject(notItsOwn("api.sock"))
    expect(await victim.control.state()).toBe("running")
  })
})

const notAttached = {
  code: "hypervisor_untrusted",
  message: expect.stringContaining("qmp.sock is not the socket that the VM was attached by"),
}

test.for(["its socket", "its directory"])(
  "an attached VM is not captured once %s has become a link",
  async (what) => {
    await using place = await ground()
    const [one, victim] = [
      await startStranger(place, { dir: await place.folder("one") }),
      await startStranger(place, { dir: await place.folder("victim") }),
    ]
    const vm = await attach(place, one)
    const aside = join(place.root, "aside")
    const path = what === "its socket" ? one.controlSocket : one.dir
    await rename(path, aside)
    await symlink(what === "its socket" ? victim.controlSocket : victim.dir, path)

    await expect(captureStranger(place, one, vm, "payload")).rejects.toMatchObject(notAttached)
    await rm(path)
    await rename(aside, path)
    await captureStranger(place, one, vm, "payload")
  },
)

test("an attached VM's socket may be reached by a link when it is attached, and belong to any user", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { dir: await place.folder("stranger"), ...users[0] })
  await symlink(stranger.controlSocket, join(place.root, "by-link.sock"))

  const range = { first: 2_100_000_000, last: 2_100_065_535 }
  const controlSocket = join(place.root, "by-link.sock")
  const vm = await attach(place, { ...stranger, controlSocket }, { users: range })

  expect(vm.controlSocket).toBe(stranger.controlSocket)
  const monitor = await openControlSocket(vm.controlSocket)
  monitor.close()
})

test("a file in a socket's place is not the VM's own either", async () => {
  await using place = await ground()
  await writeFile(join(place.root, "command.sock"), "")
  const opened = withMonitor(place.root, "command.sock", async () => {})
  await expect(opened).rejects.toMatchObject(notItsOwn("command.sock"))
})
