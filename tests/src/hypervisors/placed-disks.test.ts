import { execFile } from "node:child_process"
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { sourceFacts, type Disk } from "@stillframe/hypervisors/disks/disks"
import { placedBytes, placeRawDisks } from "@stillframe/hypervisors/disks/raw-disks"
import { expect, test } from "vitest"
import { storeIn } from "./laid-disks.ts"
import { ground, never, qemu, type Ground } from "./test-vm.ts"

const run = promisify(execFile)
const mib = 1024 ** 2

const tools = (place: Ground) => ({ qemuImg: qemu.qemuImg, store: storeIn(place), signal: never })

test("where no blocks are shared, room is foreseen for the copies of written disks", async () => {
  await using place = await ground()
  const from = await place.folder("payload")
  // A tmpfs: nothing is shared with it.
  const to = await mkdtemp("/dev/shm/stillframe-disks-")
  const disks = ["disk0.raw", "disk1.base"].map((file): Disk => {
    const layers: Disk["layers"] = [{ file, format: "raw" }]
    return { readonly: file.endsWith(".base"), virtualSize: 4 * mib, layers, sources: [] }
  })
  for (const { layers } of disks) await writeFile(join(from, layers[0]?.file ?? ""), Buffer.alloc(4 * mib, 5))

  expect(await placedBytes(disks, { from, to })).toBe(4 * mib)
  expect(await readdir(to)).toEqual([])
  await placeRawDisks(disks, { payload: from, dir: to, ...tools(place) })
  expect((await stat(join(to, "disk0.raw"))).blocks * 512).toBeLessThanOrEqual(4 * mib)
  await rm(to, { recursive: true })
})

test("room for a caller's compressed image is foreseen for what it holds, not for what it takes", async () => {
  await using place = await ground()
  const from = await place.folder("payload")
  const [plain, packed] = [join(place.root, "plain.raw"), join(from, "disk0.base")]
  await writeFile(plain, Buffer.alloc(4 * mib, 5))
  await run(qemu.qemuImg, ["convert", "-q", "-c", "-O", "qcow2", plain, packed])
  const disk: Disk = {
    readonly: true,
    virtualSize: 4 * mib,
    layers: [{ file: "disk0.base", format: "qcow2" }],
    sources: [{ path: plain, link: "disk0.base", ...(await sourceFacts(packed)) }],
  }

  expect((await stat(packed)).blocks * 512).toBeLessThan(mib)
  expect(await placedBytes([disk], { from, to: place.root })).toBe(4 * mib)
})

test("a layer that says that its data lies in another file is not converted", async () => {
  await using place = await ground()
  const [payload, dir] = [await place.folder("payload"), await place.folder("vm")]
  const secret = join(place.root, "secret")
  await writeFile(secret, Buffer.alloc(mib, 9))
  const options = ["-o", `data_file=${secret},data_file_raw=on`]
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", ...options, join(payload, "disk0.0.qcow2"), "1M"])
  const layers: Disk["layers"] = [{ file: "disk0.0.qcow2", format: "qcow2" }]
  const disk: Disk = { readonly: false, virtualSize: mib, layers, sources: [] }

  const placed = placeRawDisks([disk], { payload, dir, ...tools(place) })

  await expect(placed).rejects.toMatchObject({ message: expect.stringContaining("its data in another file") })
  expect(await readdir(dir)).toEqual([])
})

test("a caller's file that is changed while it is converted is found out", async () => {
  await using place = await ground()
  const [payload, dir] = [await place.folder("payload"), await place.folder("vm")]
  const path = join(place.root, "callers.raw")
  await writeFile(path, Buffer.alloc(mib, 5))
  const disk: Disk = {
    readonly: true,
    virtualSize: mib,
    layers: [{ file: path, format: "raw" }],
    sources: [{ path, ...(await sourceFacts(path)) }],
  }
  const meddling = join(place.root, "qemu-img")
  await writeFile(meddling, `#!/bin/sh\n"${qemu.qemuImg}" "$@" && echo more >>"${path}"\n`)
  await chmod(meddling, 0o755)

  const placed = placeRawDisks([disk], { payload, dir, ...tools(place), qemuImg: meddling })

  await expect(placed).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringContaining(`${path} was changed`),
  })
})
