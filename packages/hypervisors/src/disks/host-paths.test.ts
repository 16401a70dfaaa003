import { chmod, mkdir, mkdtemp, realpath, rm, symlink, truncate, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, expect, test } from "vitest"
import { checkDisk, openHostFile } from "./host-paths.ts"

let root: string
beforeAll(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), "stillframe-disks-")))
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(root, name), bytes, "latin1")
  await writeFile(join(root, "huge"), hugeQcow2())
  await truncate(join(root, "huge"), 16 * 2 ** 20)
})
afterAll(() => rm(root, { recursive: true, force: true }))

const files = {
  zeros: "\0".repeat(1_000),
  iso: `${"\0".repeat(0x80_00)}\x01CD001`,
  qcow2: "QFI\xfb\0\0\0\x03",
  vmdk: "KDMV\x01",
  empty: "",
}

/** Valid, with clusters of 2 MiB, and of 4 PiB. */
function hugeQcow2(): Buffer {
  const header = Buffer.alloc(104)
  header.write("QFI\xfb", "latin1")
  for (const [at, value] of [
    [4, 3],
    [20, 21],
    [36, 2 ** 13],
    [56, 1],
    [96, 4],
    [100, 104],
  ] as const)
    header.writeUInt32BE(value, at)
  header.writeBigUInt64BE(1n << 52n, 24)
  header.writeBigUInt64BE(1n << 22n, 40)
  header.writeBigUInt64BE(1n << 21n, 48)
  return header
}

const rules = () => ({ hostPaths: [root], dataDir: join(root, "data") })

async function check(name: string, format: "raw" | "qcow2") {
  await using disk = await checkDisk({ path: join(root, name), format, readonly: false }, rules())
  return { path: disk.images[0].file.path, virtualSize: disk.virtualSize }
}

test.each([
  ["zeros", 1_024],
  ["iso", 33_280],
])("a raw disk of %s is taken, in whole sectors", async (name, virtualSize) => {
  expect(await check(name, "raw")).toMatchObject({ path: join(root, name), virtualSize })
})

test.each([
  ["qcow2", "raw", 'it is a qcow image; give "format": "qcow2"'],
  ["vmdk", "raw", "it is a VMDK image; convert it with qemu-img convert -O raw"],
  ["zeros", "qcow2", 'it is not a qcow2 image; give "format": "raw"'],
  ["vmdk", "qcow2", "it is not a qcow2 image; convert it"],
  ["qcow2", "qcow2", "it is not a qcow2 image"],
  ["empty", "raw", "it has 0 bytes"],
  ["huge", "qcow2", "larger than 2 PiB"],
  ["missing", "raw", "does not exist"],
] as const)("a disk that is %s is not taken for %s", async (name, format, reason) => {
  await expect(check(name, format)).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining(reason),
  })
})

test("a file that the worker may not read is the caller's to change", async (context) => {
  if (process.getuid?.() === 0) context.skip("root may read every file")
  await writeFile(join(root, "private"), "disk")
  await chmod(join(root, "private"), 0)

  await expect(check("private", "raw")).rejects.toMatchObject({
    code: "invalid_request",
    message: expect.stringContaining("cannot read it (EACCES)"),
  })
  await expect(openHostFile(join(root, "private"), rules())).rejects.toMatchObject({
    code: "invalid_request",
  })
})

test("no message says where a link leads, or what lies outside HOST_PATHS", async () => {
  await mkdir(join(root, "in"))
  await writeFile(join(root, "out,side"), "secret")
  await symlink(join(root, "out,side"), join(root, "in", "outside"))
  await writeFile(join(root, "in", "te,xt"), "text")
  await symlink(join(root, "in", "te,xt"), join(root, "in", "comma"))
  await symlink(join(root, "zeros"), join(root, "in", "zeros"))
  const within = { ...rules(), hostPaths: [join(root, "in")] }
  const refusalOf = (path: string): Promise<string> =>
    checkDisk({ path, format: "qcow2", readonly: false }, within).then(
      () => "taken",
      (error: Error) => error.message.replaceAll(path, "it"),
    )

  const told = await Promise.all(
    ["in/outside", "in/comma", "in/zeros", "zeros", "nothing"].map((name) => refusalOf(join(root, name))),
  )

  expect(told.join()).not.toMatch(/out,side|te,xt/)
  expect(told.join()).not.toContain(root)
  // The same for a file that is there and for one that is not.
  expect(told[3]).toBe(told[4])
})
