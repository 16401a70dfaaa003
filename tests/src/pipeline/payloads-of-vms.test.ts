import { spawn } from "node:child_process"
import { once } from "node:events"
import { appendFile, lstat, readFile, stat } from "node:fs/promises"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { userOf } from "../hypervisors/hosted-vm.ts"
import { canReflink, reflinkingGround } from "../hypervisors/reflinking.ts"
import { ground, untilTicks } from "../hypervisors/test-vm.ts"
import { processOf, tryAs } from "./as-vm-user.ts"
import { act, withDisk } from "./instance-acts.ts"
import { deleteInstances, testStack, type TestStack } from "./test-stack.ts"
import { hypervisors, launchOn, stackOfAll } from "./three-hypervisors.ts"

const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn("skipped: only root can run VMs as users of their own")

/** Owner and mode of a file that only root could ever make writable. */
const roots = [0, 0o444]

async function ownerAndMode(path: string): Promise<number[]> {
  const { uid, mode } = await lstat(path)
  return [uid, mode & 0o777]
}

function fork(stack: TestStack, id: string, name: string): Promise<InstanceResource> {
  return stack.api.request("POST", `/snapshots/${id}/fork`, { name })
}

describe.skipIf(!isRoot)("as root", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await stackOfAll()
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => stack[Symbol.asyncDispose]())

  test.each(hypervisors)(
    "a kernel that a VM of %s put in its directory reaches snapshots and forks as a copy of root's",
    async (hypervisor) => {
      const source = await launchOn(stack, hypervisor, "source")
      const dir = stack.generationDir(source)
      const user = userOf(await processOf(stack, source))
      const before = await readFile(join(dir, "kernel"))
      expect(await tryAs(user, dir, "cp kernel mine && mv -f mine kernel && chmod 666 kernel")).toBe("")

      const { id } = await stack.settled((await stack.snapshot(source)).id)
      const forked = await fork(stack, id, "forked")
      // By its owner's right, as the VM's user could at any time.
      await appendFile(join(dir, "kernel"), "changed")

      const payload = await stack.payloadDir(id)
      for (const shared of [payload, stack.generationDir(forked)]) {
        expect(await ownerAndMode(join(shared, "kernel"))).toEqual(roots)
        expect((await readFile(join(shared, "kernel"))).equals(before)).toBe(true)
      }
      await untilTicks(stack.generationDir(forked), 3)
    },
  )
})

/** A process of a VM's user that keeps a file open until it is told to overwrite its start. */
async function keptOpen(user: { uid: number; gid: number }, cwd: string, name: string) {
  const script = `exec 3<>${name}; echo opened; read line; printf overwritten >&3; echo written`
  const child = spawn("/bin/sh", ["-c", script], { ...user, cwd, stdio: ["pipe", "pipe", "inherit"] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  expect((await lines.next()).value).toBe("opened")
  return {
    async overwrite() {
      const exited = once(child, "exit")
      child.stdin.end("now\n")
      expect((await lines.next()).value).toBe("written")
      await exited
    },
  }
}

test.skipIf(!isRoot || !canReflink)(
  "where files share blocks, a disk that a VM's process keeps open for writing does not reach its snapshots",
  async () => {
    await using place = await ground()
    await using mounted = await reflinkingGround(place)
    await using stack = await testStack({ folder: mounted.root })
    await stack.startCaptureWorker()
    const source = await withDisk(stack, "source")
    const dir = stack.generationDir(source)
    const layer = join(dir, "disk0.0.qcow2")
    const open = await keptOpen(userOf(await processOf(stack, source)), dir, "disk0.0.qcow2")

    const first = await stack.settled((await stack.snapshot(source)).id)
    const payload = await stack.payloadDir(first.id)
    const sealed = await readFile(join(payload, "disk0.0.qcow2"))
    await open.overwrite()
    const second = await stack.settled((await stack.snapshot(source)).id)

    expect((await readFile(join(payload, "disk0.0.qcow2"))).equals(sealed)).toBe(true)
    expect(await ownerAndMode(layer)).toEqual(roots)
    const inodes = [
      layer,
      join(payload, "disk0.0.qcow2"),
      join(await stack.payloadDir(second.id), "disk0.0.qcow2"),
    ]
    expect(new Set(await Promise.all(inodes.map(async (path) => (await stat(path)).ino))).size).toBe(1)
    for (const { id } of [first, second])
      await untilTicks(stack.generationDir(await fork(stack, id, `of-${id}`)), 3)
    await act(stack, source, "stop")
    await act(stack, source, "start")
    await untilTicks(stack.generationDir(source), 3)
    await deleteInstances(stack)
  },
)
