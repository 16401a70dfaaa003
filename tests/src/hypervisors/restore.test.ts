import { once } from "node:events"
import { createReadStream } from "node:fs"
import { copyFile, stat } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { openDirectory } from "@stillframe/hypervisors/files/open-directory"
import { withMonitor } from "@stillframe/hypervisors/qemu/monitor/qmp"
import { ensureRunning, isUnderWay, migrationStatus } from "@stillframe/hypervisors/qemu/monitor/resume"
import { restoreQemu } from "@stillframe/hypervisors/qemu/process/restore"
import { expect, test } from "vitest"
import {
  capture,
  fork,
  ground,
  heartbeat,
  pidsIn,
  qemu,
  serial,
  startHeartbeat,
  ticks,
  untilTicks,
} from "./test-vm.ts"

test("a VM left paused in the middle of a save runs again and its save is cancelled", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place)
  const directory = openDirectory(vm.dir)
  // Accepts and never reads: the save stays under way for ever, as after the death of whoever took it.
  const stalled = createServer({ pauseOnConnect: true }).listen(`${directory.path}/stalled.sock`)
  await once(stalled, "listening")
  await withMonitor(vm.dir, "command.sock", async (monitor) => {
    await monitor.execute("stop")
    const [[socket]] = await Promise.all([
      once(stalled, "connection"),
      monitor.execute("migrate", { uri: "unix:stalled.sock" }),
    ])
    const before = ticks(serial(vm.dir)).length
    expect(isUnderWay(await migrationStatus(monitor))).toBe(true)

    await ensureRunning(monitor)

    expect(await migrationStatus(monitor)).toBe("cancelled")
    await untilTicks(vm.dir, 5, before)
    socket.destroy()
  })
  stalled.close()
  directory.close()
})

test("a stream that is cut off is refused with QEMU's reason and leaves no process", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place)
  const captured = await capture(place, vm, "memory")
  const half = Math.floor((await stat(captured.memoryFile)).size / 2)

  const attempt = fork(place, vm, captured, "fork", createReadStream(captured.memoryFile, { end: half }))

  await expect(attempt).rejects.toMatchObject({
    code: "hypervisor_failed",
    message: expect.stringContaining("refused"),
  })
  expect(await pidsIn(join(place.root, "fork"))).toEqual([])
})

test("memory of another size is refused and the log says so", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place)
  const captured = await capture(place, vm, "memory")

  const larger = { ...vm.config, memoryMib: 128 }
  const attempt = fork(place, vm, captured, "fork", createReadStream(captured.memoryFile), larger)

  await expect(attempt).rejects.toMatchObject({
    code: "hypervisor_failed",
    said: expect.stringMatching(/Size mismatch/),
  })
})

test("a source of memory that fails ends the restore with its own error", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place)
  const captured = await capture(place, vm, "memory")
  async function* broken(): AsyncGenerator<Uint8Array> {
    for await (const chunk of createReadStream(captured.memoryFile, { end: 1000 })) yield chunk as Buffer
    throw new Error("frame 7 does not match its checksum")
  }

  const attempt = fork(place, vm, captured, "fork", broken())

  await expect(attempt).rejects.toThrow("frame 7 does not match its checksum")
  expect(await pidsIn(join(place.root, "fork"))).toEqual([])
})

test("a restore that is cancelled while its memory stalls ends its process", async () => {
  await using place = await ground()
  const vm = await startHeartbeat(place)
  const captured = await capture(place, vm, "memory")
  const dir = await place.folder("restored")
  const stop = new AbortController()
  async function* stalling(): AsyncGenerator<Uint8Array> {
    for await (const chunk of createReadStream(captured.memoryFile, { end: 1000 })) yield chunk as Buffer
    stop.abort()
    await new Promise<never>(() => {})
  }
  const launch = { dir, config: vm.config, disks: [], binary: qemu.binary, identity: "stillframe-test-x" }
  await copyFile(heartbeat, join(dir, "kernel"))

  const attempt = restoreQemu({ ...launch, memory: stalling(), signal: stop.signal })

  await expect(attempt).rejects.toMatchObject({ code: "cancelled" })
  expect(await pidsIn(dir)).toEqual([])
})
