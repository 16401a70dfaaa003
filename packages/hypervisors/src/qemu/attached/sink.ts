import { chown, mkdtemp, readdir, rm, rmdir, stat } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { identifyProcess } from "../../process/processes.ts"
import { openMemorySink, type MemorySink } from "../capture/memory-sink.ts"

/**
 * A socket's address holds 107 bytes, so neither the payload's directory nor a TMPDIR of any length will do.
 */
const SHORT_DIRECTORY = "/tmp"
const PREFIX = "stillframe-save-"

/**
 * A memory sink for a QEMU whose working directory is not ours: its socket lies in a short directory that
 * only that QEMU's user can enter. Throws `not_supported` where that QEMU sees another file system.
 */
export async function openAttachedSink({
  pid,
  user,
  memoryFile,
}: {
  pid: number
  user: { uid: number; gid: number }
  memoryFile: string
}): Promise<MemorySink> {
  await removeAbandoned()
  const dir = await mkdtemp(join(SHORT_DIRECTORY, `${PREFIX}${process.pid}-`))
  try {
    if (process.getuid?.() === 0) await chown(dir, user.uid, user.gid)
    await assertSeenBy(pid, dir)
    const sink = await openMemorySink({ dir, memoryFile, absolute: true })
    return {
      ...sink,
      close: async () => {
        await sink.close()
        await removeDirectory(dir)
      },
      discard: async () => {
        await sink.discard()
        await removeDirectory(dir)
      },
    }
  } catch (error) {
    await removeDirectory(dir)
    throw error
  }
}

async function assertSeenBy(pid: number, dir: string): Promise<void> {
  const [ours, theirs] = await Promise.all([
    stat(dir),
    stat(`/proc/${pid}/root${dir}`).catch(() => undefined),
  ])
  if (theirs?.ino === ours.ino && theirs.dev === ours.dev) return
  throw new StillframeError(
    "not_supported",
    `the VM's process does not see our ${SHORT_DIRECTORY} (a container, a chroot or PrivateTmp); run the service beside it`,
  )
}

/** Directories of captors that were killed in a save. */
async function removeAbandoned(): Promise<void> {
  for (const name of await readdir(SHORT_DIRECTORY)) {
    const owner = new RegExp(`^${PREFIX}(\\d+)-`).exec(name)?.[1]
    if (owner === undefined || (await identifyProcess(Number(owner))) !== undefined) continue
    // A directory of another owner is not ours to remove, and ours are empty.
    await removeDirectory(join(SHORT_DIRECTORY, name)).catch(() => {})
  }
}

async function removeDirectory(dir: string): Promise<void> {
  await rm(join(dir, "save.sock"), { force: true })
  await rmdir(dir)
}
