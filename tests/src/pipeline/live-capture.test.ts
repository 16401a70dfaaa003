import { watch } from "node:fs"
import { chmod, mkdir, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import type { LiveHost } from "@stillframe/db/hosts/hosts"
import { createSnapshot } from "@stillframe/db/snapshots/snapshots"
import type { Capabilities } from "@stillframe/domain/capabilities"
import type { InstanceResource } from "@stillframe/domain/instance"
import { captureQueue } from "@stillframe/domain/queues"
import { savesLive } from "@stillframe/hypervisors/qemu/capture/live-save"
import { probeQemu } from "@stillframe/hypervisors/qemu/probe/probe"
import { expect, test } from "vitest"
import { LARGE_MIB, live } from "../hypervisors/live-vm.ts"
import { firstGap, never, qemu, untilTicks } from "../hypervisors/test-vm.ts"
import { forkRuns } from "./fork-runs.ts"
import { serial, serialLines, testStack, type TestStack } from "./test-stack.ts"

const { version } = await probeQemu(qemu.binary, never)
const zstd = { compression: { enabled: true, algorithm: "zstd", level: 1 } }
/** More than a guest prints while the copier takes the rest out of a socket. */
const TICKS = 10

test.skipIf(!live.live_capture)(
  "a VM that is captured live goes on while its memory is saved; the snapshot is compressed, verified and forked like any",
  async () => {
    await using stack = await testStack()
    await stack.startCaptureWorker({ qemuBinary: await forRootAlone(stack) })
    await stack.startCompressionWorker()
    const source = await stack.launch("source", { image: "heartbeat", memory_mib: LARGE_MIB })

    const { id, capture } = await stack.snapshot(source, { capture: "live", ...zstd })
    using ticked = savedAtTicks(stack, source, id)
    const settled = await stack.settled(id)
    const verified = await stack.ask("POST", `/snapshots/${id}/verify`, { headers: { prefer: "wait=55" } })
    await forkRuns(stack, id, { name: "copy", source, tick: 3 })

    expect(settled).toMatchObject({ status: "ready", capture, compression_state: "compressed" })
    expect([capture, verified.body.verified_at]).toEqual(["live", expect.any(String)])
    const { uncompressed_size_bytes: whole = 0, pause_ms: pauseMs } = settled
    const during = ticked.filter(({ bytes }) => bytes > 0 && bytes < whole)
    expect(during.length).toBeGreaterThan(TICKS)
    expect(pauseMs).toBeLessThan((during.at(-1)?.atMs ?? 0) - (during[0]?.atMs ?? 0))
    expect(firstGap(await serial(stack.generationDir(source)))).toBeUndefined()
  },
)

test.skipIf(savesLive(version))("each host says whether its QEMU captures live, and why not", async () => {
  await using stack = await testStack()
  const other = join(stack.dataDir, "other")
  await mkdir(other)
  await stack.startCaptureWorker()
  await stack.launch("old")
  await stack.startCaptureWorker({ qemuBinary: await forRootAlone(stack), host: "other", dataDir: other })

  const { body } = await stack.ask("GET", "/capabilities")
  const refused = await stack.ask("POST", "/instances/old/snapshots", {
    body: { kind: "Standby", capture: "live" },
  })

  const of = (host: LiveHost | undefined): Capabilities | undefined => host?.hypervisors.qemu
  const hosts = body.hosts as LiveHost[]
  const [old, newer] = [
    hosts.find(({ name }) => name !== "other"),
    hosts.find(({ name }) => name === "other"),
  ]
  const reason = `QEMU ${version} can't save memory while its guest runs, that needs QEMU 10`
  expect(of(old)).toMatchObject({ live_capture: false, live_capture_reason: reason })
  expect([refused.status, refused.body.message]).toEqual([501, expect.stringContaining(reason)])
  expect(of(newer)?.live_capture).toBe(live.live_capture)
})

test.skipIf(savesLive(version))(
  "a live capture that its host can't make any more fails with the reason, and is no paused one",
  async () => {
    await using stack = await testStack()
    await stack.startCaptureWorker()
    const source = await stack.launch("source")
    const { pool } = await stack.db.selectFrom("hosts").select("pool").executeTakeFirstOrThrow()
    const queue = captureQueue(source.host)

    // As it would be asked for while the host had another QEMU.
    const { id } = await createSnapshot(stack.db, {
      kind: "Standby",
      capture: "live",
      queue,
      pool,
      instance: source,
    })
    const settled = await stack.settled(id)

    expect(settled).toMatchObject({
      status: "failed",
      capture: "live",
      error: { code: "not_supported", message: expect.stringContaining(version) },
    })
    await untilTicks(stack.generationDir(source), 3, await serialLines(stack.generationDir(source)))
  },
)

/**
 * The QEMU that captures live, at a path where only root can walk: the worker runs it as root, who may guard
 * memory on every host.
 */
async function forRootAlone(stack: TestStack): Promise<string> {
  const folder = join(stack.dataDir, "qemu")
  await mkdir(folder, { mode: 0o700 })
  const script = join(folder, "qemu")
  await writeFile(script, `#!/bin/sh\nexec '${live.binary}' "$@"\n`)
  await chmod(script, 0o755)
  return script
}

/** How much of the memory was in its file each time that the guest had printed something. */
function savedAtTicks(
  stack: TestStack,
  source: InstanceResource,
  id: string,
): { bytes: number; atMs: number }[] & Disposable {
  const ticked: { bytes: number; atMs: number }[] = []
  const look = async (): Promise<void> => {
    const { size } = await stat(join(await stack.payloadDir(id), "memory"))
    ticked.push({ bytes: size, atMs: performance.now() })
  }
  const watcher = watch(join(stack.generationDir(source), "serial.log"), () => {
    // Before there is a file, and after it was compressed, there is nothing to see.
    look().catch(() => {})
  })
  return Object.assign(ticked, { [Symbol.dispose]: () => watcher.close() })
}
