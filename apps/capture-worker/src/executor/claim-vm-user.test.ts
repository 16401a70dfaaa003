import { spawn } from "node:child_process"
import { once } from "node:events"
import { readFileSync } from "node:fs"
import { chown, mkdir, mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { claimUid, claimVmUser, type ClaimedUid } from "./claim-vm-user.ts"

const isRoot = process.getuid?.() === 0
/** No other test uses these. */
const range = { first: 1_900_100_000, last: 1_900_100_004 }
const all = [1, 2, 3, 4].map((step) => range.first + step)

/** A host without VMs. */
async function host() {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-users-"))
  return {
    dataDir,
    /** An instance's directory, as a VM that runs as `uid` has it. */
    async instance(id: string, uid: number, generation = 1): Promise<string> {
      const dir = join(dataDir, "instances", id, String(generation))
      await mkdir(dir, { recursive: true })
      await chown(dir, uid, uid)
      return dir
    },
    claim: (instanceId = "new") => claimUid({ range, dataDir, instanceId }),
    [Symbol.asyncDispose]: () => rm(dataDir, { recursive: true }),
  }
}

const sorted = (uids: readonly number[]): number[] => uids.toSorted((one, other) => one - other)

const release = (claims: readonly ClaimedUid[]): Promise<unknown> =>
  Promise.all(claims.map((claim) => claim[Symbol.asyncDispose]()))

test("claims that come together all get another user, and the next is refused with what to do", async () => {
  await using place = await host()

  const claims = await Promise.all(all.map(() => place.claim()))

  expect(sorted(claims.map(({ uid }) => uid))).toEqual(all)
  await expect(place.claim()).rejects.toMatchObject({
    code: "conflict",
    message: expect.stringMatching(
      /all 4 users for VMs of VM_UID_RANGE \(1900100000-1900100004\).+delete an instance, or set a wider/,
    ),
  })
  await release(claims)
  await release([await place.claim()])
})

test("a user is another host's too while that one has a claim on it", async () => {
  await using place = await host()
  await using other = await host()

  const claims = [await place.claim(), await other.claim(), await place.claim(), await other.claim()]

  expect(sorted(claims.map(({ uid }) => uid))).toEqual(all)
  await release(claims)
})

describe.skipIf(!isRoot)("as root", () => {
  test("a user is taken as long as a directory of another instance is its own", async () => {
    await using place = await host()
    await place.instance("a", all[0] ?? 0)
    await place.instance("b", all[1] ?? 0)
    // A crash left this one before the row named it.
    await place.instance("b", all[2] ?? 0, 2)

    const claimed = await place.claim("new")

    expect(claimed.uid).toBe(all[3])
    await release([claimed])
    await rm(join(place.dataDir, "instances", "a"), { recursive: true })
    const [one, two] = [await place.claim("new"), await place.claim("newer")]
    expect(sorted([one.uid, two.uid])).toEqual([all[0], all[3]])
    await release([one, two])
  })

  test("an instance keeps its user, and gets another one where that is also another's", async () => {
    await using place = await host()
    await place.instance("a", all[2] ?? 0, 3)

    const again = await place.claim("a")
    expect(again.uid).toBe(all[2])
    await release([again])

    await place.instance("copy", all[2] ?? 0)
    const fresh = await place.claim("a")
    expect(fresh.uid).not.toBe(all[2])
    await release([fresh])
  })

  test("a user with a process is taken, whosever that is, by any of its four ids", async () => {
    await using place = await host()
    const [real = 0, saved = 0] = all
    await place.instance("a", real)
    const still = spawn("sleep", ["60"], { uid: real, gid: real, stdio: "ignore" })
    // Root by its effective id, as a program with the set-user-ID bit is: the owner of its directory in /proc
    // is root.
    const other = spawn("setpriv", ["--ruid", String(saved), "sleep", "60"], { stdio: "ignore" })
    try {
      await Promise.all([once(still, "spawn"), once(other, "spawn")])
      await expect.poll(() => readFileSync(`/proc/${other.pid}/comm`, "utf8").trim()).toBe("sleep")
      const claims = [await place.claim("a"), await place.claim("a")]
      expect(sorted(claims.map(({ uid }) => uid))).toEqual([all[2], all[3]])
      await expect(place.claim("a")).rejects.toMatchObject({ code: "conflict" })
      await release(claims)
    } finally {
      for (const child of [still, other]) {
        child.kill("SIGKILL")
        await once(child, "exit")
      }
    }
    const again = await place.claim("a")
    expect(again.uid).toBe(real)
    await release([again])
  })

  test("a VM of before has a user that is none of the range, and gets one", async () => {
    await using place = await host()
    await place.instance("old", 64_055)
    const hypervisor = { name: "qemu", binary: "/qemu", qemuImg: "/qemu-img" } as const

    await using user = await claimVmUser({
      dataDir: place.dataDir,
      instanceId: "old",
      hypervisor: { ...hypervisor, vmUsers: { ...range, gid: 1_234, confined: true } },
    })

    expect(user.hypervisor.runAs).toEqual({ uid: expect.any(Number), gid: 1_234, confined: true })
    expect(all).toContain(user.hypervisor.runAs?.uid)
  })
})

test("where VMs have no users of their own, a hypervisor is left as it is", async () => {
  const hypervisor = { name: "qemu", binary: "/qemu", qemuImg: "/qemu-img" } as const

  await using user = await claimVmUser({ dataDir: "/nowhere", instanceId: "a", hypervisor })

  expect(user.hypervisor).toBe(hypervisor)
})
