import { execFile, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, readdirSync } from "node:fs"
import { rename, stat, writeFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { promisify } from "node:util"
import { findProgram } from "@stillframe/runtime/find-program"
import { expect } from "vitest"
import { qemu } from "../hypervisors/test-vm.ts"

const tool = "qemu-storage-daemon"
const unpacked = join(import.meta.dirname, "../../../.tools/qemu")

/** Why no file can be made to fail here; undefined where one can. */
export function whyNoFailingFile(): string | undefined {
  if (process.getuid?.() !== 0) return "only root can lay a file system over a file"
  if (!existsSync("/dev/fuse")) return "there is no /dev/fuse"
  return daemon() === undefined ? `${tool} is not beside ${qemu.qemuImg}` : undefined
}

/**
 * Lays a real file system over `path` that fails each read beyond the first half MiB with EIO, as a dying
 * disk does. Until it is disposed of; then the file is what it was.
 */
export async function failingFile(path: string): Promise<AsyncDisposable> {
  const rule = { event: "none", iotype: "read", errno: 5, once: false, sector: 1024 }
  return overlaid(path, { driver: "blkdebug", image: "file", "inject-error": [rule] })
}

/** As `failingFile`, with a file that takes minutes for each read, as a file server does that is away. */
export async function hangingFile(path: string): Promise<AsyncDisposable> {
  const limits = { "bps-read": 1 }
  const group = ["--object", { "qom-type": "throttle-group", id: "slow", limits }] as const
  return overlaid(path, { driver: "throttle", file: "file", "throttle-group": "slow" }, [group])
}

async function overlaid(
  path: string,
  filter: object,
  objects: readonly (readonly [string, object])[] = [],
): Promise<AsyncDisposable> {
  const { size } = await stat(path)
  const kept = join(dirname(dirname(path)), "kept")
  await rename(path, kept)
  await writeFile(path, "")
  const { program = "", env } = daemon() ?? {}
  const options: (readonly [string, object])[] = [
    ...objects,
    ["--blockdev", { driver: "file", "node-name": "file", filename: kept, "read-only": true }],
    ["--blockdev", { ...filter, "node-name": "bad" }],
    ["--export", { type: "fuse", id: "export", "node-name": "bad", mountpoint: path }],
  ]
  const args = options.flatMap(([option, value]) => [option, JSON.stringify(value)])
  const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: "ignore" })
  const ended = once(child, "exit")
  const failing: AsyncDisposable = {
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return
      // Asked to end, it would first answer the reads that hang. Its reader gets an error when it is killed.
      child.kill("SIGKILL")
      await ended
      await promisify(execFile)("umount", ["--lazy", path])
      await rename(kept, path)
    },
  }
  try {
    // What it shows is a whole number of sectors.
    await expect.poll(async () => (await stat(path)).size).toBeGreaterThanOrEqual(size)
    return failing
  } catch (error) {
    await failing[Symbol.asyncDispose]()
    throw error
  }
}

/** Of the machine, or with its libraries as the set-up has unpacked it. */
function daemon(): { program: string; env: Record<string, string> } | undefined {
  const installed = findProgram(tool, process.env["PATH"])
  if (existsSync(installed)) return { program: installed, env: {} }
  const program = join(unpacked, "usr/bin", tool)
  if (!existsSync(program)) return undefined
  const libraries = ["lib", "usr/lib"].flatMap((folder) =>
    readdirSync(join(unpacked, folder))
      .filter((name) => name.endsWith("-linux-gnu"))
      .map((name) => join(unpacked, folder, name)),
  )
  return { program, env: { LD_LIBRARY_PATH: libraries.join(":") } }
}
