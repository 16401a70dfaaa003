import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import type { HostUsers } from "./host-users.ts"
import { vmUsers } from "./vm-users.ts"

const kvmGroup = 12_345
const range = { first: 2_100_000_000, last: 2_100_000_999 }
const users: HostUsers = { range, confined: true }
const isRoot = process.getuid?.() === 0
const needsRoot = "only root can run VMs as another user"

/** A file in the place of `/dev/kvm`. */
async function device(rights: { mode: number; gid: number }) {
  const dir = await mkdtemp(join(tmpdir(), "stillframe-device-"))
  const path = join(dir, "kvm")
  await writeFile(path, "")
  await chown(path, 0, rights.gid)
  await chmod(path, rights.mode)
  await chmod(dir, 0o711)
  return { path, [Symbol.asyncDispose]: () => rm(dir, { recursive: true }) }
}

async function usersFor(kvm: string | undefined, binary = "/bin/true") {
  return vmUsers(binary, { name: "firecracker", kvm, users })
}

const withGroup = (gid: number) => ({
  vmUsers: { ...range, gid, confined: true },
  trialUser: { uid: range.first, gid, confined: true },
})
const inNoGroup = withGroup(range.first)

test.for([
  { who: "all", mode: 0o666, gid: 0, found: inNoGroup },
  { who: "its group", mode: 0o660, gid: kvmGroup, found: withGroup(kvmGroup) },
])("where $who may open the device, VMs have users of the range", async ({ mode, gid, found }, { skip }) => {
  skip(!isRoot, needsRoot)
  await using kvm = await device({ mode, gid })

  expect(await usersFor(kvm.path)).toEqual(found)
})

test.for([
  { who: "root", mode: 0o600, gid: kvmGroup },
  { who: "root's group", mode: 0o660, gid: 0 },
])(
  "where only $who may open the device, VMs are root's, with the reason",
  async ({ mode, gid }, { skip }) => {
    skip(!isRoot, needsRoot)
    await using kvm = await device({ mode, gid })

    expect(await usersFor(kvm.path)).toEqual({
      asRoot: expect.stringContaining(`only root can open ${kvm.path}`),
    })
  },
)

test("a device that is missing or not needed keeps nobody from anything, an unreachable program does", async ({
  skip,
}) => {
  skip(!isRoot, needsRoot)
  expect(await usersFor("/nowhere/kvm")).toEqual(inNoGroup)
  expect(await usersFor(undefined)).toEqual(inNoGroup)
  expect(await usersFor(undefined, "/nowhere/firecracker")).toEqual({
    asRoot: expect.stringContaining("where no other user can execute it"),
  })
})
