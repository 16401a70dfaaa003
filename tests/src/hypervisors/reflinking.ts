import { execFile } from "node:child_process"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { findProgram } from "@stillframe/runtime/find-program"
import type { Ground } from "./test-vm.ts"

const run = promisify(execFile)
const mkfsXfs = process.getuid?.() === 0 ? await findable("mkfs.xfs") : undefined

/** Whether a file system can be had here whose files share blocks. */
export const canReflink = mkfsXfs !== undefined
if (!canReflink) console.warn("skipped: reflinks need root and mkfs.xfs")

/** A ground on a file system of its own, whose files share blocks. To be left by every process when it goes. */
export async function reflinkingGround(place: Ground): Promise<Ground> {
  const image = join(place.root, "xfs.img")
  await run("truncate", ["-s", "400M", image])
  await run(mkfsXfs ?? "", ["-q", "-m", "reflink=1", image])
  const root = await place.folder("mounted")
  await run("mount", ["-o", "loop", image, root])
  return {
    root,
    own: place.own,
    folder: async (name) => {
      await mkdir(join(root, name), { recursive: true })
      return join(root, name)
    },
    [Symbol.asyncDispose]: async () => void (await run("umount", ["--lazy", root])),
  }
}

async function findable(program: string): Promise<string | undefined> {
  return await run("which", [program]).then(
    ({ stdout }) => findProgram(stdout.trim(), process.env["PATH"]),
    () => undefined,
  )
}
