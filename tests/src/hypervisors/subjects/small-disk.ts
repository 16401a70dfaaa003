import { execFile } from "node:child_process"
import { promisify } from "node:util"

const run = promisify(execFile)

/** Why no small file system can be had here; undefined where one can. */
export const whyNoSmallDisk =
  process.platform !== "linux" || process.getuid?.() !== 0
    ? "only root can mount a small file system to fill up"
    : undefined
if (whyNoSmallDisk !== undefined) console.warn(`QEMU's full disks are not tested: ${whyNoSmallDisk}`)

/** Lays a file system over an empty directory that has no more room than this, until it is disposed of. */
export async function smallDisk(dir: string, kib: number): Promise<AsyncDisposable> {
  await run("mount", ["-t", "tmpfs", "-o", `size=${kib}k`, "tmpfs", dir])
  return { [Symbol.asyncDispose]: async () => void (await run("umount", ["--lazy", dir])) }
}
