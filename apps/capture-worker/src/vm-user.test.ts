import { chmod, chown, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createLogger } from "@stillframe/runtime/logger"
import { expect, test, vi } from "vitest"
import { vmUser } from "./vm-user.ts"

const kvmGroup = 12_345
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

/** What it comes to, and what people are told. */
async function userFor(kvm: string | undefined, binary = "/bin/true") {
  const warnings: string[] = []
  const log = createLogger({ service: "test", level: "silent" })
  log.warn = (_: object, message?: string) => void warnings.push(message ?? "")
  return { user: await vmUser(binary, { name: "firecracker", kvm, log }), warnings }
}

const nobody = { uid: 64_055, gid: 64_055 }

test.for([
  { who: "all", mode: 0o666, gid: 0, user: nobody },
  { who: "its group", mode: 0o660, gid: kvmGroup, user: { uid: 64_055, gid: kvmGroup } },
])("where $who may open the device, a VM is nobody's", async ({ mode, gid, user }, { skip }) => {
  skip(!isRoot, needsRoot)
  await using kvm = await device({ mode, gid })

  expect(await userFor(kvm.path)).toEqual({ user, warnings: [] })
})

test.for([
  { who: "root", mode: 0o600, gid: kvmGroup },
  { who: "root's group", mode: 0o660, gid: 0 },
])(
  "where only $who may open the device, a VM is root's and a warning says why",
  async ({ mode, gid }, { skip }) => {
    skip(!isRoot, needsRoot)
    await using kvm = await device({ mode, gid })

    const { user, warnings } = await userFor(kvm.path)

    expect(user).toBeUndefined()
    expect(warnings).toEqual([expect.stringContaining(`only root can open ${kvm.path}`)])
  },
)

test("a device that is missing or not needed keeps nobody from anything, an unreachable program does", async ({
  skip,
}) => {
  skip(!isRoot, needsRoot)
  expect((await userFor("/nowhere/kvm")).user).toEqual(nobody)
  expect((await userFor(undefined)).user).toEqual(nobody)
  const { user, warnings } = await userFor(undefined, "/nowhere/firecracker")
  expect(user).toBeUndefined()
  expect(warnings).toEqual([expect.stringContaining("where no other user can execute it")])
})

test("whoever is not root runs VMs as himself", async () => {
  using _ = vi.spyOn(process, "getuid").mockReturnValue(1_000)

  expect(await userFor("/dev/kvm")).toEqual({ user: undefined, warnings: [] })
})
