import { spawn, type ChildProcess } from "node:child_process"
import { chown, open, readFile, readdir, realpath } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { writeDisks, type Disk } from "../disks.ts"
import type { LaunchConfig } from "../launch-config.ts"
import { endProcess, identifyProcess, openFiles, type ProcessIdentity } from "../processes.ts"
import { qemuArguments, qemuFiles } from "./command.ts"
import { isSealed } from "./layers.ts"
import { openMonitor, type Monitor } from "./qmp.ts"

export interface LaunchOptions {
  /** The VM's directory of this generation, empty but for its layers and kernel; becomes QEMU's working directory. */
  dir: string
  /** Absolute: QEMU gets an environment of its own, with nothing of ours in it. */
  binary: string
  config: LaunchConfig
  disks: readonly Disk[]
  /** `stillframe-<cluster id>-<instance id>`: how the host finds the process again. */
  identity: string
  /** The unprivileged user QEMU runs as where this process is root. It must be able to execute `binary`. */
  runAs?: { uid: number; gid: number }
  signal: AbortSignal
}

const START_TIMEOUT_MS = 15_000
const START_POLL_MS = 3
const END_GRACE_MS = 2000
const LOG_TAIL_BYTES = 4096
/** The reason of a failed load comes two lines before the end. */
const LAST_LINES = 3
/** What QEMU opens besides its VM's own files. */
const harmlessLink = /^((socket|pipe|anon_inode):|\/dev\/(null|zero|urandom|random|kvm)$|\/memfd:)/

/**
 * Starts QEMU stopped (`-S`) in a session of its own, so that it outlives us, and waits until its monitor answers and every file that it
 * has open is one we named. Throws `hypervisor_failed` with QEMU's last words; then no process is left.
 */
export async function launchQemu(options: LaunchOptions & { incoming?: boolean }): Promise<ProcessIdentity> {
  const { dir, disks, runAs } = options
  await writeDisks(dir, disks)
  if (runAs !== undefined) await giveDirectory(dir, runAs)
  const { child, exited } = await spawnQemu(options)
  const identity = await identifyProcess(child.pid ?? 0)
  try {
    const monitor = await Promise.race([monitorWhenReady(dir, options.signal), exited])
    monitor.close()
    if (identity === undefined) throw await exited
    await assertOnlyAllowedFiles(identity.pid, dir, disks)
    child.unref()
    return identity
  } catch (error) {
    if (identity !== undefined) await endProcess(identity, { graceMs: END_GRACE_MS })
    throw error
  }
}

/** The last lines QEMU wrote to its log: the only place where it says why it could not start or load. */
export async function lastWords(dir: string): Promise<string> {
  const text = await readFile(join(dir, qemuFiles.log), "utf8").catch((error: unknown) => String(error))
  const lines = text.slice(-LOG_TAIL_BYTES).trim().split("\n").slice(-LAST_LINES)
  return lines.map((line) => line.replace(/^qemu-system-\S+: /, "")).join("; ") || "it said nothing"
}

interface Started {
  child: ChildProcess
  exited: Promise<never>
}

async function spawnQemu(options: LaunchOptions & { incoming?: boolean }): Promise<Started> {
  const { dir, binary, runAs } = options
  const log = await open(join(dir, qemuFiles.log), "a", 0o600)
  try {
    // The child enters `cwd` before it gives up root, so the directory may lie where its user could never walk.
    const child = spawn(binary, qemuArguments(options), {
      cwd: dir,
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
      // Ours holds secrets, and what runs in there may be broken out of.
      env: { PATH: "/usr/local/bin:/usr/bin:/bin", LC_ALL: "C" },
      ...runAs,
    })
    return { child, exited: exitOf(child, dir) }
  } finally {
    await log.close()
  }
}

/** Rejects when the process ends, which while it is being started is always a failure. */
function exitOf(child: ChildProcess, dir: string): Promise<never> {
  const ended = Promise.withResolvers<never>()
  child.once("error", (error) => {
    ended.reject(
      new StillframeError(
        "hypervisor_unavailable",
        `QEMU could not be executed (${error.message}); check QEMU_BINARY`,
        { cause: error },
      ),
    )
  })
  child.once("exit", (code, signal) => {
    void endedError(dir, signal ?? `status ${code}`).then(ended.reject)
  })
  // Once the VM runs nobody waits for this any more, and its end is the watcher's business.
  ended.promise.catch(() => {})
  return ended.promise
}

async function endedError(dir: string, how: string): Promise<StillframeError> {
  const words = await lastWords(dir)
  if (noMemory.test(words))
    return new StillframeError(
      "insufficient_resources",
      `the host has no memory for this VM (${words}); end another one, or give it less`,
    )
  return new StillframeError("hypervisor_failed", `QEMU ended with ${how}: ${words}`)
}

/** What QEMU says when the guest's memory can't be had from the kernel. */
const noMemory = /cannot set up guest memory|Cannot allocate memory/

async function monitorWhenReady(dir: string, signal: AbortSignal): Promise<Monitor> {
  for (const end = performance.now() + START_TIMEOUT_MS; ; await delay(START_POLL_MS)) {
    if (signal.aborted)
      throw new StillframeError("cancelled", "the launch was cancelled", { cause: signal.reason })
    try {
      return await openMonitor(dir, qemuFiles.command)
    } catch (error) {
      if (!(error instanceof StillframeError) || error.code !== "hypervisor_gone") throw error
      if (performance.now() > end) {
        throw new StillframeError(
          "timeout",
          `QEMU opened no monitor in ${START_TIMEOUT_MS} ms: ${await lastWords(dir)}`,
        )
      }
    }
  }
}

async function assertOnlyAllowedFiles(pid: number, dir: string, disks: readonly Disk[]): Promise<void> {
  const own = `${await realpath(dir)}/`
  const named = new Set(disks.flatMap(({ layers }) => layers.map(({ file }) => file)))
  const foreign = (await openFiles(pid)).find(
    (link) => !harmlessLink.test(link) && !link.startsWith(own) && !named.has(link),
  )
  if (foreign !== undefined) {
    throw new StillframeError(
      "hypervisor_failed",
      `QEMU opened ${foreign}, which the launch does not name; the VM was ended`,
    )
  }
}

async function giveDirectory(dir: string, { uid, gid }: { uid: number; gid: number }): Promise<void> {
  await chown(dir, uid, gid)
  for (const name of await readdir(dir)) {
    // A caller's file stays the caller's, though it has a second name here, and a snapshot's copy stays the snapshot's.
    if (/^disk\d+\.(base|copy)$/.test(name) || name === qemuFiles.kernel || name === qemuFiles.initrd)
      continue
    // A sealed layer is a snapshot's too, and its owner could write it again.
    if (await isSealed(join(dir, name))) continue
    await chown(join(dir, name), uid, gid)
  }
}
