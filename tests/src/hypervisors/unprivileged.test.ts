import { chmod, copyFile, readdir, rm, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { canRunAs } from "@stillframe/hypervisors/process/run-as"
import { describe, expect, test } from "vitest"
import { captureHosted, forkHosted, hosted, hostedTools, launchHosted, userOf } from "./hosted-vm.ts"
import { firstGap, ground, heartbeat, never, serial, type Ground } from "./test-vm.ts"

const runAs = { uid: 64_055, gid: 64_055 }
const diskBytes = 1024 ** 2

/** Owner, group and mode. */
async function rights(path: string): Promise<string> {
  const { uid, gid, mode } = await stat(path)
  return `${uid}:${gid} ${(mode & 0o777).toString(8)}`
}

/** Of a directory and what it holds; empty where there is none. */
async function rightsIn(dir: string, name: string): Promise<string[]> {
  if (!(await readdir(dir)).includes(name)) return []
  const inside = await readdir(join(dir, name))
  return Promise.all(["", ...inside.toSorted()].map((file) => rights(join(dir, name, file))))
}

/**
 * What a VM goes on needing of what it was loaded from: Cloud Hypervisor has a copy, Firecracker maps the
 * memory.
 */
const mapped = {
  "cloud-hypervisor": [],
  firecracker: ["0:0 755", "0:0 444", "0:0 444"],
}

/** The program lies where every user can walk, and nothing else does. */
async function programs(): Promise<Ground> {
  const place = await ground()
  await chmod(place.root, 0o755)
  return place
}

async function secretFiles({ root }: Ground) {
  const [kernel, disk] = [join(root, "kernel"), join(root, "disk.raw")]
  await copyFile(heartbeat, kernel)
  await writeFile(disk, Buffer.alloc(diskBytes, 7))
  for (const path of [kernel, disk]) await chmod(path, 0o600)
  return { kernel, disks: [{ path: disk, format: "raw" as const, readonly: true }] }
}

describe.skipIf(process.getuid?.() !== 0).each(hosted)("as root, a VM of %s", (name) => {
  test.each(["in its own directory", "in a staging directory"])(
    "runs as another user, and is saved %s and restored all the same",
    async (where) => {
      await using place = await ground()
      await using elsewhere = await programs()
      const tools = {
        ...(await hostedTools(name, elsewhere.root)),
        runAs,
        ...(where === "in a staging directory" && { staging: await elsewhere.folder("staging") }),
      }
      expect(await canRunAs(tools.binary, runAs, never)).toBe(true)
      const vm = await launchHosted(place, tools, { config: await secretFiles(place) })
      const payload = await place.folder("payload")
      await chmod(payload, 0o700)
      let printed = ""
      let saving: string[] = []

      const captured = await captureHosted(vm, payload, {
        onPaused: () => void (printed = serial(vm.dir)),
        beforePause: async () => {
          const dir = tools.staging ?? vm.dir
          const names = (await readdir(dir)).filter((found) => found.startsWith("saving"))
          saving = await Promise.all(names.map((found) => rights(join(dir, found))))
        },
      })
      const saved = await Promise.all(captured.files.map((file) => rights(join(payload, file.name))))
      const fork = await forkHosted(place, { ...vm, tools }, { payload, captured })

      expect([userOf(vm.process), userOf(fork.process)]).toEqual([runAs, runAs])
      expect(saving).toEqual(["64055:64055 700"])
      expect(new Set(saved)).toEqual(new Set(["0:0 600"]))
      expect(firstGap(printed + serial(fork.dir))).toBeUndefined()
    },
  )

  test("can read what it boots from and maps, and change nothing of it", async () => {
    await using place = await ground()
    await using elsewhere = await programs()
    const tools = { ...(await hostedTools(name, elsewhere.root)), runAs }
    const callers = await secretFiles(place)
    const vm = await launchHosted(place, tools, { config: callers })

    expect(await rights(vm.dir)).toMatch(/^64055:64055/)
    expect(await rights(join(vm.dir, "kernel"))).toBe("0:0 444")
    expect(await rights(join(vm.dir, "disk0.base"))).toBe("0:0 444")
    // The caller's own files are as they were.
    for (const path of [callers.kernel, callers.disks[0]?.path ?? ""])
      expect(await rights(path)).toBe("0:0 600")

    const payload = await place.folder("payload")
    const captured = await captureHosted(vm, payload)
    const fork = await forkHosted(place, { ...vm, tools }, { payload, captured })
    const saved = await rightsIn(fork.dir, "saved")
    expect(saved).toEqual(mapped[name])
  })

  test("that cannot be executed in namespaces of its own is told of by the setting that names its program", async () => {
    await using place = await ground()
    await using elsewhere = await programs()
    const tools = { ...(await hostedTools(name, elsewhere.root)), runAs: { ...runAs, confined: true } }
    await rm(tools.binary)

    await expect(launchHosted(place, tools)).rejects.toMatchObject({
      code: "hypervisor_unavailable",
      message: expect.stringMatching(
        /cannot be executed on this host; check (CLOUD_HYPERVISOR|FIRECRACKER)_BINARY/,
      ),
    })
  })
})
