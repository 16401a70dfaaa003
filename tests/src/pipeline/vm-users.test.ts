import { spawn } from "node:child_process"
import { once } from "node:events"
import { chmod, chown, lstat, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { processAlive, processesIn, type ProcessIdentity } from "@stillframe/hypervisors/process/processes"
import { isVmUser } from "@stillframe/hypervisors/process/vm-users"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { userOf } from "../hypervisors/hosted-vm.ts"
import { qemu, untilTicks } from "../hypervisors/test-vm.ts"
import { processOf, tryAs } from "./as-vm-user.ts"
import { act, diskHolds, restore, withDisk } from "./instance-acts.ts"
import { deleteInstances, expireLeases, testStack, vmUids, type TestStack } from "./test-stack.ts"

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn("skipped: only root can run VMs as users of their own")

describe.skipIf(!isRoot)("as root", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await testStack()
    await stack.startCaptureWorker()
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => stack[Symbol.asyncDispose]())

  test("an instance keeps its user through stop, start, Standby and a restore in place", async () => {
    const source = await withDisk(stack, "source")
    const user = async () => userOf(await processOf(stack, source)).uid
    const uid = await user()
    const snapshot = await stack.settled((await stack.snapshot(source)).id)

    const users: number[] = []
    await act(stack, source, "stop")
    await act(stack, source, "start")
    users.push(await user())
    await act(stack, source, "standby")
    await act(stack, source, "restore")
    users.push(await user())
    await act(stack, source, "stop")
    await restore(stack, source, snapshot)
    users.push(await user())

    expect(users).toEqual([uid, uid, uid])
    await untilTicks(stack.generationDir(source, 3), 3)
  })

  test("what is left of an ended VM as its user keeps the user from the next start, and the files go to another one", async () => {
    const source = await withDisk(stack, "source")
    const user = userOf(await processOf(stack, source))
    await act(stack, source, "stop")
    const left = spawn("sleep", ["600"], { ...user, stdio: "ignore" })
    await once(left, "spawn")
    try {
      await act(stack, source, "start")
      const now = userOf(await processOf(stack, source)).uid
      const dir = stack.generationDir(source)

      expect(now).not.toBe(user.uid)
      const owners = await Promise.all(
        ["", "command.sock", "disk0.0.qcow2"].map(async (name) => (await lstat(join(dir, name))).uid),
      )
      expect(owners).toEqual([now, now, now])
      await untilTicks(dir, 3)
      expect(await tryAs(user, "/", `ls ${dir}`)).toContain("Permission denied")
    } finally {
      left.kill("SIGKILL")
      await once(left, "exit")
    }
  })
})

test.skipIf(!isRoot)(
  "where all users are taken, a launch is refused before anything is made, and a deletion frees one",
  async () => {
    await using stack = await testStack()
    const range = { first: 1_900_200_000, last: 1_900_200_002 }
    await stack.startCaptureWorker({ vmUids: range })
    const [one, two] = [await stack.launch("one"), await stack.launch("two")]
    const { id } = await stack.settled((await stack.snapshot(two)).id)
    await act(stack, two, "stop")

    const launched = await stack.ask("POST", "/instances", {
      body: { name: "three", launch: { image: "heartbeat" } },
    })
    const forked = await stack.ask("POST", `/snapshots/${id}/fork`, { body: { name: "four" } })

    for (const { status, body } of [launched, forked]) {
      expect([status, body.code]).toEqual([409, "conflict"])
      expect(body.message).toMatch(
        /all 2 users for VMs of VM_UID_RANGE.+delete an instance, or set a wider range/,
      )
    }
    expect((await readdir(join(stack.dataDir, "instances"))).toSorted()).toEqual([one.id, two.id].toSorted())
    const { uid } = userOf(await processOf(stack, one))
    await stack.api.request("DELETE", `/instances/${one.id}`)
    const three = await stack.launch("three")
    expect(userOf(await processOf(stack, three)).uid).toBe(uid)
    // A stopped one has kept its own.
    expect((await act(stack, two, "start")).state).toBe("Running")
  },
)

/** In no range of the next worker, as user 64055 that all VMs had before. */
const former = { uid: 1_900_300_001, gid: 1_900_300_000 }

test.skipIf(!isRoot)(
  "a VM of the one user that all had before runs on over an upgrade, and its next start has a user of its own",
  async () => {
    await using stack = await testStack()
    const earlier = await stack.startCaptureWorker({ vmUids: { first: former.gid, last: former.uid } })
    const source = await withDisk(stack, "source")
    const dir = stack.generationDir(source)
    const old = await stack.settled((await stack.snapshot(source)).id)
    const vm = await processOf(stack, source)
    // As the version before sealed them: for the group of all VMs.
    const layer = join(await stack.payloadDir(old.id), "disk0.0.qcow2")
    await chown(layer, 0, former.gid)
    await chmod(layer, 0o440)
    await earlier[Symbol.asyncDispose]()
    expect(userOf(vm)).toEqual(former)

    await stack.startCaptureWorker()
    const fork = await stack.api.request<InstanceResource>("POST", `/snapshots/${old.id}/fork`, {
      name: "fork",
    })
    const captured = await stack.settled((await stack.snapshot(source)).id)

    await untilTicks(stack.generationDir(fork), 3)
    expect(isVmUser(vmUids, userOf(await processOf(stack, fork)).uid)).toBe(true)
    expect(captured.status).toBe("ready")
    expect(await processAlive(vm)).toBe(true)
    await act(stack, source, "stop")
    expect(await processAlive(vm)).toBe(false)
    await act(stack, source, "start")
    await untilTicks(dir, 3)
    const now = userOf(await processOf(stack, source)).uid
    expect(isVmUser(vmUids, now)).toBe(true)
    expect((await stat(dir)).uid).toBe(now)
    await act(stack, source, "stop")
    expect(await diskHolds(stack, dir)).toEqual([7])
  },
)

test.skipIf(!isRoot)(
  "a launch that dies with its worker before its VM has started leaves no user taken",
  async () => {
    await using opened = new AsyncDisposableStack()
    const stack = opened.use(await testStack())
    const programs = await mkdtemp(join(tmpdir(), "stillframe-programs-"))
    opened.defer(() => rm(programs, { recursive: true }))
    await chmod(programs, 0o711)
    const hanging = join(programs, "qemu")
    const probed = `case "$*" in *guest=stillframe-*) exec sleep 600;; *) exec ${qemu.binary} "$@";; esac`
    await writeFile(hanging, `#!/bin/sh\n${probed}\n`, { mode: 0o755 })
    const worker = await stack.spawn("capture-worker", { QEMU_BINARY: hanging })
    const asked = stack.ask("POST", "/instances", { body: { name: "one", launch: { image: "heartbeat" } } })
    const hung = async (): Promise<ProcessIdentity[]> => {
      const ids = await readdir(join(stack.dataDir, "instances")).catch(() => [])
      return processesIn(ids.map((id) => join(stack.dataDir, "instances", id, "1")))
    }
    await expect
      .poll(async () => (await hung()).map((vm) => isVmUser(vmUids, userOf(vm).uid)))
      .toEqual([true])
    const [started] = await hung()
    if (started === undefined) throw new Error("the VM's process has ended")
    worker.child.kill("SIGKILL")
    await worker.ended
    await expireLeases(stack)

    await stack.startCaptureWorker()

    expect((await asked).body.message).toContain("the capture-worker died while it started the VM; try again")
    expect(await processAlive(started)).toBe(false)
    expect(await readdir(join(stack.dataDir, "instances"))).toEqual([])
  },
)

test.skipIf(!isRoot)("a range that holds an account is no setting to start with", async () => {
  await using stack = await testStack()

  const attempt = stack.startCaptureWorker({ vmUids: { first: 65_534, last: 65_600 } })

  await expect(attempt).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining('VM_UID_RANGE: holds "nobody" (65534) of "getent passwd"'),
  })
})

test.skipIf(!isRoot)(
  "a worker with the capabilities that SECURITY.md lists, and no other, launches, captures, stops and starts VMs",
  async () => {
    await using stack = await testStack()
    const rights = ["chown", "dac_override", "fowner", "kill", "setgid", "setuid", "sys_ptrace"]
    const only = ["-all", ...rights.map((right) => `+${right}`)].join(",")
    await stack.spawn("capture-worker", {}, ["setpriv", "--bounding-set", only])

    const vm = await withDisk(stack, "vm")
    expect(isVmUser(vmUids, userOf(await processOf(stack, vm)).uid)).toBe(true)
    expect((await stack.settled((await stack.snapshot(vm)).id)).status).toBe("ready")
    await act(stack, vm, "standby")
    await act(stack, vm, "restore")
    await act(stack, vm, "stop")
    await act(stack, vm, "start")

    await untilTicks(stack.generationDir(vm, 2), 3)
    expect((await stack.ask("DELETE", `/instances/${vm.id}`)).status).toBe(204)
  },
)
