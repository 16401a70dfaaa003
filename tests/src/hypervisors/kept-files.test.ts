import { chown, link, rename, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { giveSocket } from "@stillframe/hypervisors/own-socket"
import { expect, test } from "vitest"
import { ground } from "./test-vm.ts"

const isRoot = process.getuid?.() === 0
const user = { uid: 2_100_000_001, gid: 2_100_000_001 }

test.skipIf(!isRoot)("a file that takes the name of our socket is not given to a VM's user", async () => {
  await using place = await ground()
  const dir = await place.folder("vm")
  const image = join(place.root, "image")
  await writeFile(image, "of many VMs", { mode: 0o444 })
  await link(image, join(dir, "kernel"))
  await chown(dir, user.uid, user.gid)
  await rename(join(dir, "kernel"), join(dir, "save.sock"))

  expect(() => giveSocket(dir, "save.sock")).toThrow(
    /save.sock in the VM's directory is not the VM's own socket/,
  )

  expect((await stat(image)).uid).toBe(0)
  await rm(dir, { recursive: true })
})
