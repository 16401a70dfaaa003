import { execFile } from "node:child_process"
import { mkdir, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { isAbsolute, join } from "node:path"
import { promisify } from "node:util"
import { findProgram } from "@stillframe/runtime/find-program"
import type { Ground } from "./test-vm.ts"

const run = promisify(execFile)
// The set-up brings it.
const mkfs = findProgram("mkfs.btrfs", process.env["PATH"])
const imageSize = "400M"

const obstacle = await obstacleHere()

/** Whether a file system can be had here whose files share blocks. */
export const canReflink = obstacle === undefined
if (!canReflink) console.warn(`skipped: no file system whose files share blocks: ${obstacle}`)

/**
 * A ground on a file system of its own, whose files share blocks. To be left by every process when it goes.
 */
export async function reflinkingGround(place: Pick<Ground, "root" | "own">): Promise<Ground> {
  const root = await mountIn(place.root)
  return {
    root,
    own: place.own,
    folder: async (name) => {
      await mkdir(join(root, name), { recursive: true })
      return join(root, name)
    },
    [Symbol.asyncDispose]: () => unmount(root),
  }
}

async function mountIn(folder: string): Promise<string> {
  const image = join(folder, "btrfs.img")
  await run("truncate", ["-s", imageSize, image])
  await run(mkfs, ["--quiet", image])
  const root = join(folder, "mounted")
  await mkdir(root)
  await run("mount", ["-t", "btrfs", "-o", "loop", image, root])
  return root
}

async function unmount(root: string): Promise<void> {
  await run("umount", ["--lazy", root])
}

/** Containers often lack loop devices, and some kernels Btrfs: only doing it tells. */
async function obstacleHere(): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return "only root can mount one"
  if (!isAbsolute(mkfs)) return "mkfs.btrfs is not on PATH; the set-up of `npm test` fetches it"
  const folder = await mkdtemp(join(tmpdir(), "stillframe-reflink-"))
  try {
    await unmount(await mountIn(folder))
    return undefined
  } catch (error) {
    return (error as Error).message.trim()
  } finally {
    await rm(folder, { recursive: true })
  }
}
