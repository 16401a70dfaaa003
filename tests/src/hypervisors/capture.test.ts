import { execFile } from "node:child_process"
import { createHash } from "node:crypto"
import { createReadStream, readFileSync } from "node:fs"
import { readFile, readdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { StillframeError } from "@stillframe/domain/errors"
import type { Captured } from "@stillframe/hypervisors/qemu/capture/capture"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { expect, test } from "vitest"
import {
  capture,
  firstGap,
  fork,
  ground,
  qemu,
  serial,
  startHeartbeat,
  ticks,
  untilTicks,
  type TestVm,
} from "./test-vm.ts"

const run = promisify(execFile)
test("two captures of a VM with a qcow2 and a raw disk both restore, and the caller's files stay as they were", async () => {
  await using place = await ground()
  const { root } = place
  await writeFile(join(root, "lower.raw"), Buffer.alloc(1024 * 1024, 7))
  await run(qemu.qemuImg, [
    "create",
    "-q",
    "-f",
    "qcow2",
    "-b",
    "lower.raw",
    "-F",
    "raw",
    join(root, "upper.qcow2"),
  ])
  await writeFile(join(root, "plain.raw"), Buffer.alloc(1024 * 1024, 8))
  const files = ["lower.raw", "upper.qcow2", "plain.raw"].map((name) => join(root, name))
  const before = files.map(digest)
  const vm = await startHeartbeat(place, {
    disks: [
      { path: join(root, "upper.qcow2"), format: "qcow2", readonly: false },
      { path: join(root, "plain.raw"), format: "raw", readonly: false },
      { path: join(root, "lower.raw"), format: "raw", readonly: true },
    ],
  })

  const first = await capture(place, vm, "first")
  const second = await capture(place, vm, "second")

  expect(first.disks.map(({ layers }) => layers.map(({ file }) => file))).toEqual([
    ["disk0.0.qcow2", "disk0.base", "disk0.1.base"],
    ["disk1.0.qcow2", "disk1.base"],
    ["disk2.base"],
  ])
  expect(second.disks[1]?.layers.map(({ file }) => file)).toEqual([
    "disk1.1.qcow2",
    "disk1.0.qcow2",
    "disk1.base",
  ])
  const forks = []
  for (const [index, captured] of [first, second].entries()) {
    forks.push(await fork(place, vm, captured, `fork${index}`, createReadStream(captured.memoryFile)))
    expect(firstGap(captured.printed + serial(join(root, `fork${index}`)))).toBeUndefined()
  }
  expect(forks[1]?.disks[1]?.layers[0]?.file).toBe("disk1.2.qcow2")
  expect(files.map(digest)).toEqual(before)
})

test("each capture's layers hold what was written before it and nothing later", async () => {
  await using place = await ground()
  await writeFile(join(place.root, "plain.raw"), Buffer.alloc(1024 * 1024, 8))
  const disk = { path: join(place.root, "plain.raw"), format: "raw", readonly: false } as const
  const vm = await startHeartbeat(place, { disks: [disk] })

  await writeToDisk(vm, 0x11)
  const first = await capture(place, vm, "first")
  await writeToDisk(vm, 0x22)
  const second = await capture(place, vm, "second")
  await writeToDisk(vm, 0x33)

  expect(await firstByte(vm, first)).toBe(0x11)
  expect(await firstByte(vm, second)).toBe(0x22)
  expect((await readFile(disk.path))[0]).toBe(8)
})

test("a foreign block job is a conflict that names it, and the VM is never paused", async () => {
  await using place = await ground()
  await writeFile(join(place.root, "plain.raw"), Buffer.alloc(1024 * 1024, 8))
  const disk = { path: join(place.root, "plain.raw"), format: "raw", readonly: false } as const
  const vm = await startHeartbeat(place, { disks: [disk] })
  await withMonitor(vm.dir, "command.sock", async (monitor) => {
    await monitor.execute("blockdev-add", { driver: "null-co", "node-name": "nowhere", size: 1024 * 1024 })
    const job = { "job-id": "foreign", device: "disk0-0", target: "nowhere", sync: "full" }
    await monitor.execute("blockdev-mirror", job)
  })
  let asked = false

  const attempt = capture(place, vm, "memory", { beforePause: () => void (asked = true) })

  await expect(attempt).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining("foreign"),
  })
  expect(asked).toBe(false)
  expect(await overlaysOf(vm)).toEqual(["disk0.0.qcow2"])
})

test("a capture that is refused right before the pause leaves nothing behind", async () => {
  await using place = await ground()
  await writeFile(join(place.root, "plain.raw"), Buffer.alloc(1024 * 1024, 8))
  const disk = { path: join(place.root, "plain.raw"), format: "raw", readonly: false } as const
  const vm = await startHeartbeat(place, { disks: [disk] })
  let paused = false
  const refuse = (): never => {
    throw new StillframeError("lease_lost", "the lease is lost")
  }

  const attempt = capture(place, vm, "memory", { beforePause: refuse, onPaused: () => void (paused = true) })

  await expect(attempt).rejects.toThrow("the lease is lost")
  expect(paused).toBe(false)
  expect(await overlaysOf(vm)).toEqual(["disk0.0.qcow2"])
  expect(await readdir(place.root)).not.toContain("memory")
  expect((await capture(place, vm, "again")).disks[0]?.layers).toHaveLength(2)
})

test("a capture cancelled in the pause lets the VM run on, and the next capture works", async () => {
  await using place = await ground()
  await writeFile(join(place.root, "plain.raw"), Buffer.alloc(1024 * 1024, 8))
  const disk = { path: join(place.root, "plain.raw"), format: "raw", readonly: false } as const
  const vm = await startHeartbeat(place, { disks: [disk] })
  const stop = new AbortController()

  const attempt = capture(place, vm, "memory", { signal: stop.signal, onPaused: () => stop.abort() })

  await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
  expect(await readdir(place.root)).not.toContain("memory")
  await expectRunning(vm)
  const next = await capture(place, vm, "next")
  const copy = await fork(place, vm, next, "fork", createReadStream(next.memoryFile))
  expect(firstGap(next.printed + serial(copy.dir))).toBeUndefined()
})

test("a pause longer than its limit is given up and the VM runs on", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place)

  const attempt = capture(place, vm, "memory", { pauseLimitMs: 1 })

  await expect(attempt).rejects.toMatchObject({ code: "pause_limit_exceeded" })
  expect(await readdir(place.root)).not.toContain("memory")
  await expectRunning(vm)
})

test("a directory whose path is longer than a socket's address is captured and restored", async () => {
  await using place = await ground()
  const dir = await place.folder(`${"deep/".repeat(30)}vm`)
  const vm = await startHeartbeat(place, { dir })

  const captured = await capture(place, vm, "memory")
  const copy = await fork(
    place,
    vm,
    captured,
    `${"deep/".repeat(30)}fork`,
    createReadStream(captured.memoryFile),
  )

  expect(copy.dir.length).toBeGreaterThan(150)
  expect(firstGap(captured.printed + serial(copy.dir))).toBeUndefined()
})

/** Writes the first sector through the VM's own device, as its guest would. */
async function writeToDisk(vm: TestVm, byte: number): Promise<void> {
  const line = `qemu-io -d /machine/peripheral/disk0/virtio-backend "write -P ${byte} 0 512"`
  const said = await withMonitor(vm.dir, "command.sock", async (monitor) => {
    return await monitor.execute("human-monitor-command", { "command-line": line })
  })
  expect(said).not.toContain("rror")
}

async function firstByte(vm: TestVm, { disks }: Captured): Promise<number | undefined> {
  const [top] = disks[0]?.layers ?? []
  const out = join(vm.dir, "sector")
  await run(
    qemu.qemuImg,
    ["dd", "-U", "-f", "qcow2", "-O", "raw", "bs=512", "count=1", `if=${top?.file}`, `of=${out}`],
    {
      cwd: vm.dir,
    },
  )
  return (await readFile(out))[0]
}

async function expectRunning(vm: TestVm): Promise<void> {
  expect(await status(vm)).toMatchObject({ status: "running", running: true })
  await untilTicks(vm.dir, 5, ticks(serial(vm.dir)).length)
}

async function status(vm: TestVm): Promise<unknown> {
  return await withMonitor(vm.dir, "command.sock", async (monitor) => await monitor.execute("query-status"))
}

async function overlaysOf(vm: TestVm): Promise<string[]> {
  return (await readdir(vm.dir)).filter((name) => name.endsWith(".qcow2"))
}

function digest(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex")
}
