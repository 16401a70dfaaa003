import { execFile } from "node:child_process"
import { chmod, mkdir, mkdtemp, rm, stat, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { watches, type Watches } from "@stillframe/capture-worker/watch/watches"
import { measureClock } from "@stillframe/db/hosts/measure-clock"
import { heartbeat } from "@stillframe/db/hosts/register"
import {
  completeAttach,
  createInstance,
  findInstance,
  type InstanceRow,
} from "@stillframe/db/instances/instances"
import { writeOverlayRecord } from "@stillframe/hypervisors/qemu/attached/overlay/overlay-record"
import { createLogger } from "@stillframe/runtime/logger"
import { exists } from "@stillframe/storage/exists"
import { instanceDir } from "@stillframe/storage/layout"
import { testDatabase } from "@stillframe/testing/database"
import { expect, test } from "vitest"
import { qemu } from "../hypervisors/test-vm.ts"
import { deadProcess } from "./dead-process.ts"

const run = promisify(execFile)
const bytes = 1024 ** 2

/**
 * An attached VM that has ended and wrote to an overlay of ours until then, and a `qemu-img` that never ends.
 */
async function endedVm() {
  await using opened = new AsyncDisposableStack()
  const { db } = opened.use(await testDatabase())
  const dir = await mkdtemp(join(tmpdir(), "stillframe-ended-"))
  opened.defer(() => rm(dir, { recursive: true }))
  await heartbeat(db, { name: "h", hostId: "h", bootId: "b", pool: "p", hypervisors: {} })
  const facts = { image: "disk", hypervisor: "qemu", host: "h", launch: {}, vcpus: 1, memoryMib: 64 } as const
  const { id } = await createInstance(db, { name: "ended", ...facts })

  const [path, overlay] = [join(dir, "disk.raw"), join(dir, "disk.raw.stillframe-overlay")]
  await writeFile(path, "")
  await truncate(path, bytes)
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", overlay])
  const process = await deadProcess()
  const home = instanceDir(dir, id)
  await mkdir(home, { recursive: true })
  const { dev, ino: inode } = await stat(path)
  const file = { path, identity: `${dev}:${inode}`, format: "raw" as const }
  const disk = { ...file, node: "d", readonly: false, virtualSize: bytes, backing: [] }
  const recorded = { base: { ...disk, inode }, overlay, overlayNode: "o", job: "j" }
  await writeOverlayRecord(home, { process, staged: true, merging: true, disks: [recorded] })
  const vm = { controlSocket: join(dir, "qmp.sock"), process, allowOverlay: true, disks: [disk] }
  const values = { vcpus: 1, memoryMib: 64, launch: {}, attached: vm, restorableReason: null }
  const instance = await completeAttach(db, id, { pid: process.pid, ...values })
  if (instance === undefined) throw new Error("not inserted")

  const [endless, started] = [join(dir, "qemu-img"), join(dir, "started")]
  await writeFile(endless, `#!/bin/sh\n: > '${started}'\nexec sleep 600\n`)
  await chmod(endless, 0o755)
  const clock = await measureClock(db)
  const watchWith = (qemuImg: string): Watches =>
    watches({
      db,
      clusterId: "ended",
      hypervisors: new Map(),
      home: { identify: async () => {} },
      clock: { reading: () => clock },
      config: { dataDir: dir, qemuImg, resumeRoomBytes: 0, attachedLookMs: 30_000 },
      committed: () => {},
      log: createLogger({ service: "test", level: "silent" }),
    })
  const shown = async (): Promise<InstanceRow | undefined> => findInstance(db, id)
  const resources = opened.move()
  return {
    instance,
    overlay,
    started,
    endless,
    shown,
    watchWith: (qemuImg: string) => resources.use(watchWith(qemuImg)),
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

test("a worker that ends while it commits the overlays of an ended VM records nothing; the next one does both", async () => {
  await using vm = await endedVm()
  const first = vm.watchWith(vm.endless)
  first.start(vm.instance)
  await expect.poll(() => exists(vm.started)).toBe(true)

  await first[Symbol.asyncDispose]()

  expect(await vm.shown()).toMatchObject({ state: "Running", exit_message: null })
  vm.watchWith(qemu.qemuImg).start(vm.instance)
  await expect.poll(vm.shown).toMatchObject({
    state: "Stopped",
    exit_message: "the VM's process, which its owner had started, has ended",
  })
  expect(await exists(vm.overlay)).toBe(false)
})
