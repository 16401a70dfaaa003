import { once } from "node:events"
import type { Socket } from "node:net"
import { Readable } from "node:stream"
import { pipeline } from "node:stream/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { connectIn } from "../../process/connect-in.ts"
import { endProcess, type ProcessIdentity } from "../../process/processes.ts"
import { logHasWhy } from "../../refusal.ts"
import { migrationEnd, setUpMigration } from "../capture/migration.ts"
import { withMonitor, type Monitor } from "../monitor/qmp.ts"
import type { VmStatus } from "../monitor/resume.ts"
import { qemuFiles } from "./command.ts"
import { launchQemu, lastWordsOfQemu, type LaunchOptions } from "./launch.ts"

const RESTORE_SOCKET = "restore.sock"
const DEADLINE_BASE_MS = 30_000
/** 16 MiB/s: a slow network file system, not a guess of the usual. */
const DEADLINE_MS_PER_MIB = 64
const END_GRACE_MS = 500
const closedByQemu: ReadonlySet<string | undefined> = new Set([
  "EPIPE",
  "ECONNRESET",
  "ERR_STREAM_PREMATURE_CLOSE",
])

/**
 * Starts a QEMU process and loads a memory stream into it; the VM is left paused, `startGuest` lets it go on.
 * Nothing of the stream touches a file. On any failure the process is ended; throws `hypervisor_failed` with
 * the reason from QEMU's log in `said`, `cancelled`, `timeout`, or what `memory` threw.
 */
export async function restoreQemu(
  options: LaunchOptions & { memory: AsyncIterable<Uint8Array> },
): Promise<ProcessIdentity> {
  const { dir, memory, signal, config } = options
  const identity = await launchQemu({ ...options, incoming: true })
  try {
    const deadline = AbortSignal.timeout(DEADLINE_BASE_MS + config.memoryMib * DEADLINE_MS_PER_MIB)
    await withMonitor(dir, qemuFiles.command, async (monitor) => {
      await load(monitor, dir, memory, AbortSignal.any([signal, deadline]))
    })
    return identity
  } catch (error) {
    await endProcess(identity, { graceMs: END_GRACE_MS })
    if (signal.aborted) throw new StillframeError("cancelled", "the restore was cancelled", { cause: error })
    throw await withReason(error, dir)
  }
}

async function load(
  monitor: Monitor,
  dir: string,
  memory: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  await setUpMigration(monitor)
  const end = migrationEnd(monitor)
  await monitor.execute("migrate-incoming", { uri: `unix:${RESTORE_SOCKET}` })
  const socket = await connectIn(dir, RESTORE_SOCKET)
  try {
    const loaded = Promise.all([sent(memory, socket, signal), end.promise])
    await Promise.race([loaded, abortOf(signal)])
  } finally {
    socket.destroy()
    end.stop()
  }
  const { status } = await monitor.execute<VmStatus>("query-status")
  // It is loaded as it was saved: on a host whose disk was full it tries its write again.
  if (status !== "paused" && status !== "io-error")
    throw new StillframeError("hypervisor_failed", `the VM is ${status} after its memory was loaded`)
}

async function sent(memory: AsyncIterable<Uint8Array>, socket: Socket, signal: AbortSignal): Promise<void> {
  try {
    await pipeline(Readable.from(memory), socket, { signal })
  } catch (error) {
    // QEMU closes first when it refuses the stream, and may when it has all it needs: its own word counts.
    if (!closedByQemu.has((error as NodeJS.ErrnoException).code)) throw error
  }
}

/** QEMU may also stall after the last byte, when the stream's own end no longer helps. */
async function abortOf(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, "abort")
  throw signal.reason
}

async function withReason(error: unknown, dir: string): Promise<unknown> {
  if (!(error instanceof StillframeError)) {
    const timedOut = error instanceof Error && error.name === "TimeoutError"
    return timedOut
      ? new StillframeError("timeout", "the memory was not loaded in time; the process was ended", {
          cause: error,
        })
      : error
  }
  if (error.code !== "hypervisor_gone" && error.code !== "hypervisor_failed") return error
  return new StillframeError(
    "hypervisor_failed",
    `QEMU refused the snapshot's memory; verify the snapshot: if it is intact, ${logHasWhy}`,
    { cause: error, said: await lastWordsOfQemu(dir) },
  )
}
