import { chown, lchown, lstat, readdir, realpath, rm } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { disksFile, isOverlay, writeDisks, type Disk } from "../../disks/disks.ts"
import { isSealed } from "../../files/seal-copy.ts"
import { letReadLayer } from "../../files/vm-user-files.ts"
import type { LaunchConfig } from "../../launch-config.ts"
import { beginLog } from "../../process/bounded-log.ts"
import { openFiles, type ProcessIdentity } from "../../process/processes.ts"
import { lastWords, startProcess } from "../../process/start-process.ts"
import type { VmUser } from "../../process/vm-users.ts"
import { logHasWhy } from "../../refusal.ts"
import { openMonitor, type Monitor } from "../monitor/qmp.ts"
import { knownMistake } from "./callers-mistake.ts"
import { qemuArguments, qemuFiles } from "./command.ts"

export interface LaunchOptions {
  /**
   * The VM's directory of this generation, empty but for its layers and kernel; becomes QEMU's working
   * directory.
   */
  dir: string
  /** Absolute: QEMU gets an environment of its own, with nothing of ours in it. */
  binary: string
  config: LaunchConfig
  disks: readonly Disk[]
  /** `stillframe-<cluster id>-<instance id>`: how the host finds the process again. */
  identity: string
  /** The unprivileged user QEMU runs as where this process is root. It must be able to execute `binary`. */
  runAs?: VmUser
  signal: AbortSignal
}

const START_TIMEOUT_MS = 15_000
const START_POLL_MS = 3
/** Files that QEMU opens besides those of its VM. */
const harmlessLink = /^((socket|pipe|anon_inode):|\/dev\/(null|zero|urandom|random|kvm)$|\/memfd:)/

/**
 * Starts QEMU stopped (`-S`) in a session of its own, so that it outlives us, and waits until its monitor
 * answers and every file that it has open is one we named. Throws as `startProcess` does, `invalid_request`
 * where QEMU's words are known to blame what the caller gave, and `timeout`; then no process is left.
 */
export async function launchQemu(options: LaunchOptions & { incoming?: boolean }): Promise<ProcessIdentity> {
  try {
    return await startQemu(options)
  } catch (error) {
    // A restore's files are ours: nothing in them is the caller's to mend.
    throw options.incoming === true ? error : knownMistake(error)
  }
}

async function startQemu(options: LaunchOptions & { incoming?: boolean }): Promise<ProcessIdentity> {
  const { dir, disks, runAs, binary } = options
  await writeDisks(dir, disks)
  await beginLog(join(dir, qemuFiles.serial))
  // A process that was broken out of may have left links there, which would be read before QEMU replaces
  // them.
  for (const name of [qemuFiles.command, qemuFiles.watch]) await rm(join(dir, name), { force: true })
  if (runAs !== undefined) await giveDirectory(dir, runAs)
  const { identity } = await startProcess({
    program: "QEMU",
    setting: "QEMU_BINARY",
    binary,
    args: qemuArguments(options),
    dir,
    log: qemuFiles.log,
    runAs,
    async untilReady({ pid }) {
      const monitor = await monitorWhenReady(dir, options.signal)
      monitor.close()
      await assertOnlyAllowedFiles(pid, dir, disks)
    },
  })
  return identity
}

export async function lastWordsOfQemu(dir: string): Promise<string> {
  return await lastWords(dir, qemuFiles.log)
}

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
          `QEMU opened no monitor in ${START_TIMEOUT_MS} ms; ${logHasWhy}`,
          { said: await lastWordsOfQemu(dir) },
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
      `QEMU opened a file that the launch does not name, so the VM was ended; ${logHasWhy}`,
      { said: foreign },
    )
  }
}

async function giveDirectory(dir: string, { uid, gid }: VmUser): Promise<void> {
  await chown(dir, uid, gid)
  for (const name of await readdir(dir)) {
    // Images and kernels are shared with other VMs, and a snapshot's copy stays the snapshot's.
    if (/^disk\d+\.(\d+\.)?(base|copy)$/.test(name) || name === qemuFiles.kernel || name === qemuFiles.initrd)
      continue
    // The directory may have been its user's for a while, and a name in it may be that of anybody's file by
    // now.
    const found = await lstat(join(dir, name))
    if (!found.isFile() || name === disksFile) continue
    // A sealed layer is a snapshot's too, and its owner could write it again.
    if (await isSealed(join(dir, name))) {
      if (isOverlay(name)) await letReadLayer(join(dir, name))
      continue
    }
    if (found.nlink !== 1) continue
    await lchown(join(dir, name), uid, gid)
  }
}
