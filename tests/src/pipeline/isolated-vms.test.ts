import { execFile } from "node:child_process"
import { readFile, readlink, stat } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { InstanceResource } from "@stillframe/domain/instance"
import { processAlive } from "@stillframe/hypervisors/process/processes"
import { isVmUser } from "@stillframe/hypervisors/process/vm-users"
import { withMonitor, type Monitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest"
import { userOf } from "../hypervisors/hosted-vm.ts"
import { untilTicks } from "../hypervisors/test-vm.ts"
import { processOf, tryAs } from "./as-vm-user.ts"
import { deleteInstances, serialLines, vmUids, type TestStack } from "./test-stack.ts"
import { hypervisors, launchOn, stackOfAll } from "./three-hypervisors.ts"

const run = promisify(execFile)
const isRoot = process.getuid?.() === 0
if (!isRoot) console.warn("skipped: only root can run VMs as users of their own")

/** Where each listens, in its VM's directory. */
const sockets = { qemu: "command.sock", "cloud-hypervisor": "api.sock", firecracker: "api.sock" }

async function stopAndGoOn(monitor: Monitor): Promise<void> {
  await monitor.execute("stop")
  await monitor.execute("cont")
}

/** Connects to a socket in the working directory. */
const connectTo = (name: string): string =>
  `'${process.execPath}' -e 'require("net").connect("${name}").on("connect", () => { console.log("connected"); process.exit() }).on("error", (error) => console.log(error.code))'`

describe.skipIf(!isRoot)("as root", () => {
  let stack: TestStack
  beforeAll(async () => {
    stack = await stackOfAll()
  })
  afterEach(() => deleteInstances(stack))
  afterAll(() => stack[Symbol.asyncDispose]())

  test.each(hypervisors)(
    "two VMs of %s are users of their own, and closed to each other",
    async (hypervisor) => {
      const [one, other] = [
        await launchOn(stack, hypervisor, "one"),
        await launchOn(stack, hypervisor, "other"),
      ]
      const [dir, otherDir] = [stack.generationDir(one), stack.generationDir(other)]
      const [vm, otherVm] = [await processOf(stack, one), await processOf(stack, other)]
      const [user, victim] = [userOf(vm), userOf(otherVm)]

      expect(user.uid).not.toBe(victim.uid)
      for (const [{ uid }, of] of [
        [user, dir],
        [victim, otherDir],
      ] as const) {
        expect(isVmUser(vmUids, uid)).toBe(true)
        const { uid: owner, mode } = await stat(of)
        expect([owner, mode & 0o077]).toEqual([uid, 0])
      }
      const denied = expect.stringMatching(/Permission denied|Operation not permitted/)
      const { pid } = otherVm
      for (const attempt of [
        `ls ${otherDir}`,
        `cat ${otherDir}/serial.log`,
        `head -c 1 /proc/${pid}/mem`,
        `head -c 1 /proc/${pid}/environ`,
        `ls /proc/${pid}/fd/`,
        `ls /proc/${pid}/cwd/`,
        `ls /proc/${pid}/root/`,
        `/bin/kill -0 ${pid}`,
      ])
        expect([attempt, await tryAs(user, "/", attempt)]).toEqual([attempt, denied])
      // Even from within: as if a directory had stayed open.
      expect(await tryAs(user, otherDir, connectTo(sockets[hypervisor]))).toBe("EACCES")
      expect(await tryAs(user, dir, connectTo(sockets[hypervisor]))).toBe("connected")
      await untilTicks(otherDir, 2, await serialLines(otherDir))
    },
  )

  test.each(hypervisors)(
    "a VM of %s that leads us to another VM's socket is fenced, and the other one runs on",
    async (hypervisor) => {
      const [one, other] = [
        await launchOn(stack, hypervisor, "one"),
        await launchOn(stack, hypervisor, "other"),
      ]
      const [dir, otherDir] = [stack.generationDir(one), stack.generationDir(other)]
      const vm = await processOf(stack, one)
      const socket = sockets[hypervisor]
      const script = `mv ${socket} aside.sock && ln -s ${join(otherDir, socket)} ${socket}`
      expect(await tryAs(userOf(vm), dir, script)).toBe("")
      // The next look at the VM comes at once where its hypervisor tells of a change.
      if (hypervisor === "qemu") await withMonitor(dir, "aside.sock", stopAndGoOn)

      const shown = ({ id }: InstanceResource) => stack.api.request("GET", `/instances/${id}`)
      const reason = expect.stringContaining(`${socket} in the VM's directory is not the VM's own socket`)
      await expect.poll(() => shown(one)).toMatchObject({ state: "Unknown", state_error: reason })
      await expect(stack.snapshot(one)).rejects.toThrow("409")
      await untilTicks(otherDir, 2, await serialLines(otherDir))
      expect(await shown(other)).toMatchObject({ state: "Running" })
      await stack.api.request("DELETE", `/instances/${one.id}`)
      expect(await processAlive(vm)).toBe(false)
      expect(await shown(other)).toMatchObject({ state: "Running" })
    },
  )

  test.each(hypervisors)(
    "a VM of %s has namespaces of its own, and sees no process of another user",
    async (hypervisor) => {
      const [one, other] = [
        await launchOn(stack, hypervisor, "one"),
        await launchOn(stack, hypervisor, "other"),
      ]
      const [vm, otherVm] = [await processOf(stack, one), await processOf(stack, other)]
      const namespace = (pid: number | "self", name: string) => readlink(`/proc/${pid}/ns/${name}`)

      for (const name of ["mnt", "ipc", "uts", "net"]) {
        const three = [
          await namespace("self", name),
          await namespace(vm.pid, name),
          await namespace(otherVm.pid, name),
        ]
        expect(new Set(three).size).toBe(3)
      }
      const inside = ["--target", String(vm.pid), "--mount", "--net", "--"]
      const { uid, gid } = userOf(vm)
      const asVm = ["setpriv", "--reuid", String(uid), "--regid", String(gid), "--clear-groups", "--"]
      const seen = await run("nsenter", [...inside, ...asVm, "ls", "/proc"])
      const pids = seen.stdout.split("\n").filter((name) => /^\d+$/.test(name))
      expect(pids).toContain(String(vm.pid))
      expect(pids).not.toContain(String(otherVm.pid))
      expect(pids).not.toContain(String(process.pid))
      // Not even the abstract sockets by which captors and workers hold their rights.
      const unix = await run("nsenter", [...inside, "cat", "/proc/self/net/unix"])
      expect(unix.stdout).not.toMatch(/@stillframe(-home|-host|-vm-user)?\//)
      const status = await readFile(`/proc/${vm.pid}/status`, "utf8")
      for (const line of [/^Groups:\s*$/m, /^CapPrm:\s+0+$/m, /^CapBnd:\s+0+$/m, /^NoNewPrivs:\s+1$/m])
        expect(status).toMatch(line)
    },
  )

  test.each(hypervisors)(
    "forks of one snapshot on %s start at once as users of their own",
    async (hypervisor) => {
      const source = await launchOn(stack, hypervisor, "source")
      const { id } = await stack.settled((await stack.snapshot(source)).id)

      const forks = await Promise.all(
        ["a", "b", "c"].map((name) =>
          stack.api.request<InstanceResource>("POST", `/snapshots/${id}/fork`, { name }),
        ),
      )
      for (const fork of forks) await untilTicks(stack.generationDir(fork), 3)

      const users = await Promise.all(
        [source, ...forks].map(async (vm) => userOf(await processOf(stack, vm)).uid),
      )
      expect(new Set(users).size).toBe(4)
    },
  )
})
