import { appendFile, lstat, readFile } from "node:fs/promises"
import { join } from "node:path"
import type { InstanceResource } from "@stillframe/domain/instance"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { userOf } from "../hypervisors/hosted-vm.ts"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { processOf, tryAs } from "./as-vm-user.ts"
import { deleteInstances, type TestStack } from "./test-stack.ts"
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
