import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { Monitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { afterAll, afterEach, beforeAll, expect, test } from "vitest"
import { asOwner, expectRunning, startStranger } from "../hypervisors/stranger.ts"
import { ground } from "../hypervisors/test-vm.ts"
import { attach, get, stackForAllGrounds } from "./attached.ts"
import { deleteInstances, type TestStack } from "./test-stack.ts"

let stack: TestStack
beforeAll(async () => {
  stack = await stackForAllGrounds()
})
afterEach(() => deleteInstances(stack))
afterAll(() => stack[Symbol.asyncDispose]())

/** Counts, as the VM's owner hears it, how often the guest was stopped. */
async function stopsDuring(monitor: Monitor, work: () => Promise<void>): Promise<number> {
  let stops = 0
  const end = monitor.subscribe(({ event }) => void (event === "STOP" && stops++))
  await work()
  // Events come before the answer.
  await monitor.execute("query-status")
  end()
  return stops
}

test("a VM with a device that QEMU can't save says so once attached, and is never paused for a snapshot", async () => {
  await using place = await ground()
  const disk = join(place.root, "a.raw")
  await writeFile(disk, Buffer.alloc(1024 * 1024, 7))
  const args = ["-drive", `file=${disk},format=raw,if=none,id=d`, "-device", "nvme,drive=d,serial=1"]
  const stranger = await startStranger(place, { args })

  const theirs = await attach(stack, stranger, { allow_overlay: true })
  expect(theirs).toMatchObject({
    restorable: false,
    restorable_reason: expect.stringMatching(
      /^QEMU cannot save this VM because of the device \S*nvme\. .*attach it again/,
    ),
  })
  const stops = await asOwner(stranger, (monitor) =>
    stopsDuring(monitor, async () => {
      const reply = await stack.ask("POST", `/instances/${theirs.id}/snapshots`, {
        body: { kind: "Standby" },
        headers: { prefer: "wait=30" },
      })
      expect(reply).toMatchObject({
        status: 501,
        body: { message: expect.stringMatching(/^QEMU cannot save this VM because of the device \S*nvme/) },
      })
    }),
  )
  expect(stops).toBe(0)
  await expectRunning(stranger)
})

test("a VM with a network card of its owner's says that its snapshots can't be restored, and so does each of them", async () => {
  await using place = await ground()
  const stranger = await startStranger(place, { args: ["-nic", "user,model=virtio-net-pci"] })

  const theirs = await attach(stack, stranger)
  const snapshot = await stack.settled((await stack.snapshot(theirs)).id)

  const reason = expect.stringMatching(/^the VM runs with -nic user.*attach it again/)
  const said = { restorable: false, restorable_reason: reason }
  expect(theirs).toMatchObject(said)
  expect(snapshot).toMatchObject({ status: "ready", ...said })
  const listed = await stack.api.request("GET", `/snapshots?source_instance_id=${theirs.id}`)
  expect(listed).toMatchObject([said])
  // The snapshot's own word counts, whatever has become of its instance.
  await stack.api.request("DELETE", `/instances/${theirs.id}`)
  for (const body of [{ name: "copy" }, { name: "copy", target_state: "Stopped" }])
    expect(await stack.ask("POST", `/snapshots/${snapshot.id}/fork`, { body })).toMatchObject({
      status: 501,
      body: { message: reason },
    })
})

test("a VM that can be restored, and its snapshot, say nothing of it", async () => {
  await using place = await ground()
  const stranger = await startStranger(place)

  const theirs = await attach(stack, stranger)
  const snapshot = await stack.settled((await stack.snapshot(theirs)).id)

  for (const resource of [await get(stack, theirs), snapshot])
    for (const member of ["restorable", "restorable_reason"]) expect(resource).not.toHaveProperty(member)
})
