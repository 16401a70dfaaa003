import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { copyFile, mkdir, readlink, stat, symlink, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { checkDisk, resolveHostPath } from "@stillframe/hypervisors/disks/host-paths"
import { endProcess, identifyProcess, processAlive } from "@stillframe/hypervisors/process/processes"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { watchQemu } from "@stillframe/hypervisors/qemu/monitor/watch"
import { probeAccel, probeQemu } from "@stillframe/hypervisors/qemu/probe/probe"
import { launchQemu } from "@stillframe/hypervisors/qemu/process/launch"
import { GuestRefusal } from "@stillframe/hypervisors/refusal"
import { expect, test } from "vitest"
import {
  capture,
  firstGap,
  ground,
  heartbeat,
  heartbeatConfig,
  never,
  pidsIn,
  qemu,
  startHeartbeat,
} from "./test-vm.ts"

const run = promisify(execFile)
const isRoot = process.getuid?.() === 0
const nobody = { uid: 65_534, gid: 65_534 }

test("a VM's process knows nothing of our environment", async () => {
  await using place = await ground()
  process.env["STILLFRAME_TEST_SECRET"] = "hidden"

  const vm = await startHeartbeat(place)

  expect(readFileSync(`/proc/${vm.process.pid}/environ`, "utf8")).not.toContain("hidden")
  delete process.env["STILLFRAME_TEST_SECRET"]
})

test("a launched VM has its own session, carries our name and works in its directory", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place)

  const { pid } = vm.process
  const sessionOf = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[3]
  expect(Number(sessionOf)).toBe(pid)
  expect(readFileSync(`/proc/${pid}/cmdline`, "utf8")).toContain("guest=stillframe-test-vm")
  expect(await readlink(`/proc/${pid}/cwd`)).toBe(vm.dir)
  expect(readFileSync(`/proc/${pid}/status`, "utf8")).toMatch(/Seccomp:\s2/)
})

test.skipIf(!isRoot)("as root the VM runs as another user and is captured all the same", async () => {
  await using place = await ground()
  const { root } = place
  await writeFile(join(root, "plain.raw"), Buffer.alloc(1024 * 1024, 8), { mode: 0o644 })
  const disk = { path: join(root, "plain.raw"), format: "raw", readonly: false } as const

  const vm = await startHeartbeat(place, { runAs: nobody, disks: [disk] })
  const captured = await capture(place, vm, "memory")

  expect(readFileSync(`/proc/${vm.process.pid}/status`, "utf8")).toMatch(/Uid:\s65534\s65534\s65534/)
  // mkdtemp's 0700 folder above keeps that user out of every other path.
  expect((await stat(root)).mode & 0o777).toBe(0o700)
  expect((await stat(disk.path)).uid).toBe(0)
  expect(firstGap(captured.printed)).toBeUndefined()
})

test("a QEMU that refuses its guest in words that nobody foresaw is a refusal, and the words are the log's", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  const refusing = join(place.root, "refusing")
  await writeFile(refusing, "#!/bin/sh\necho qemu: bad thing 17 in /srv/secret >&2\nexit 1\n", {
    mode: 0o755,
  })
  const launch = { dir, config: await heartbeatConfig(), identity: "stillframe-test-x", signal: never }

  const refused = launchQemu({ ...launch, binary: refusing, disks: [] })

  await expect(refused).rejects.toBeInstanceOf(GuestRefusal)
  await expect(refused).rejects.toMatchObject({
    message: expect.not.stringMatching(/bad thing|secret/),
    said: "bad thing 17 in /srv/secret",
  })
})

test("a kernel that QEMU cannot boot is the caller's mistake, in our words, and leaves no process", async () => {
  await using place = await ground()
  // An ELF like any other, without the note that QEMU needs.
  await copyFile(process.execPath, join(place.root, "program"))
  const dir = await place.folder("vm")

  const attempt = startHeartbeat(place, { dir, change: { kernel: join(place.root, "program") } })

  await expect(attempt).rejects.toMatchObject({
    code: "invalid_request",
    message: "QEMU cannot boot the kernel; give a bzImage, or a vmlinux with a PVH note",
  })
  expect(await pidsIn(dir)).toEqual([])
})

test("a binary that does not exist is said to be unavailable", async () => {
  await using place = await ground()
  const config = await heartbeatConfig()
  const launch = { dir: place.root, config, disks: [], identity: "stillframe-test-x", signal: never }

  const attempt = launchQemu({ ...launch, binary: join(place.root, "missing") })

  await expect(attempt).rejects.toMatchObject({ code: "hypervisor_unavailable" })
})

test("a file that the launch does not name ends the process before the guest runs", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  await writeFile(join(place.root, "secret"), Buffer.alloc(1024 * 1024))
  await symlink(join(place.root, "secret"), join(dir, "disk0.base"))
  await copyFile(heartbeat, join(dir, "kernel"))
  const disks = [
    {
      readonly: true,
      virtualSize: 1024 * 1024,
      layers: [{ file: "disk0.base", format: "raw" as const }],
      sources: [],
    },
  ]
  const launch = {
    dir,
    config: await heartbeatConfig(),
    binary: qemu.binary,
    identity: "stillframe-test-x",
    signal: never,
  }

  const attempt = launchQemu({ ...launch, disks })

  await expect(attempt).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.not.stringContaining("secret"),
    said: expect.stringContaining("secret"),
  })
  expect(await pidsIn(dir)).toEqual([])
})

test("a VM that is killed, and one that resets, are both reported by the watcher", async () => {
  await using place = await ground()
  const killed = await startHeartbeat(place, { dir: await place.folder("killed") })
  const reset = await startHeartbeat(place, { dir: await place.folder("reset") })
  const [first, second] = [await watchQemu(killed.dir), await watchQemu(reset.dir)]

  process.kill(killed.process.pid, "SIGKILL")
  await withMonitor(reset.dir, "command.sock", async (monitor) => {
    await monitor.execute("system_reset")
    await monitor.closed
  })

  expect(await first.ended).toBe("gone")
  expect(await second.ended).toBe("ended_by_host")
})

test("a process is only itself with its start time and its boot", async () => {
  await using place = await ground()
  const { process: identity } = await startHeartbeat(place)

  expect(await processAlive(identity)).toBe(true)
  expect(await processAlive({ ...identity, startTime: identity.startTime - 1 })).toBe(false)
  expect(await processAlive({ ...identity, bootId: "another" })).toBe(false)
  await endProcess({ ...identity, startTime: identity.startTime - 1 }, { graceMs: 0 })
  expect(await identifyProcess(identity.pid)).toEqual(identity)
  await endProcess(identity, { graceMs: 2000 })
  expect(await processAlive(identity)).toBe(false)
})

test("paths outside HOST_PATHS, in DATA_DIR, through a link or to a folder are refused", async () => {
  await using place = await ground()
  const { root } = place
  const allowed = await place.folder("allowed")
  for (const folder of ["data", "data/images", "data/instances"]) await mkdir(join(root, folder))
  for (const name of ["allowed/ok", "outside", "data/secret", "data/images/kernel"])
    await writeFile(join(root, name), "x")
  await symlink(join(root, "outside"), join(allowed, "link"))
  const rules = { hostPaths: [allowed], dataDir: join(root, "data") }
  const wide = { ...rules, hostPaths: [root] }

  expect(await resolveHostPath(join(allowed, "ok"), rules)).toBe(join(allowed, "ok"))
  expect(await resolveHostPath(join(root, "data/images/kernel"), wide)).toBe(join(root, "data/images/kernel"))
  for (const name of [
    "outside",
    "allowed/link",
    "allowed/../outside",
    "allowed/missing",
    "allowed",
    "data/images/kernel",
  ]) {
    const refused = { code: "invalid_request", message: expect.stringContaining(name) }
    await expect(resolveHostPath(`${root}/${name}`, rules)).rejects.toMatchObject(refused)
  }
  await expect(resolveHostPath(join(root, "data/secret"), wide)).rejects.toThrow("DATA_DIR")
})

test("an image that leads QEMU to another file is refused before QEMU sees it", async () => {
  await using place = await ground()
  const { root } = place
  const allowed = await place.folder("allowed")
  await writeFile(join(root, "secret"), Buffer.alloc(4096))
  await writeFile(join(allowed, "lower"), Buffer.alloc(4096))
  const rules = { hostPaths: [allowed], dataDir: join(root, "data") }
  const make = async (name: string, ...args: string[]): Promise<void> => {
    await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", "-u", ...args, join(allowed, name), "1M"])
  }
  await make("outside", "-b", join(root, "secret"), "-F", "raw")
  await make("json", "-b", 'json:{"driver":"file","filename":"/etc/hostname"}', "-F", "raw")
  await make("protocol", "-b", "nbd://127.0.0.1/x", "-F", "raw")
  await run(qemu.qemuImg, [
    "create",
    "-q",
    "-f",
    "qcow2",
    "-o",
    `data_file=${join(allowed, "data")}`,
    join(allowed, "data-file"),
    "1M",
  ])
  await make("fine", "-b", "lower", "-F", "raw")
  await make("loop", "-b", "loop", "-F", "qcow2")

  const look = async (name: string) => {
    await using disk = await checkDisk({ path: join(allowed, name), format: "qcow2", readonly: false }, rules)
    return disk.images.map(({ file: { path }, format }) => ({ path, format }))
  }

  await expect(look("outside")).rejects.toThrow("HOST_PATHS")
  await expect(look("json")).rejects.toThrow("not a plain path")
  await expect(look("protocol")).rejects.toThrow("not a plain path")
  await expect(look("data-file")).rejects.toThrow("another file")
  await expect(look("loop")).rejects.toThrow("more than 16")
  await expect(look("lower")).rejects.toThrow("not a qcow2")
  expect(await look("fine")).toEqual([
    { path: join(allowed, "fine"), format: "qcow2" },
    { path: join(allowed, "lower"), format: "raw" },
  ])
})

test("the probe names the version and exact machine types, and falls back to TCG where KVM runs no guest", async () => {
  await using place = await ground()
  const { version, machines } = await probeQemu(qemu.binary, never)
  await writeFile(join(place.root, "no-kernel"), "no kernel")

  const guest = { kernel: join(place.root, "no-kernel"), memoryMib: 64, marker: "00000001" }

  expect(version).toMatch(/^\d+\.\d+\.\d+$/)
  expect(machines).toEqual({
    q35: expect.stringMatching(/^pc-q35-\d+\.\d+$/),
    pc: expect.stringMatching(/^pc-i440fx-\d+\.\d+$/),
    known: expect.arrayContaining([machines.q35, machines.pc]),
  })
  expect(await probeAccel(qemu.binary, machines.q35, guest, never)).toBe("tcg")
  await expect(probeQemu("node", never)).rejects.toMatchObject({ code: "hypervisor_unavailable" })
})
