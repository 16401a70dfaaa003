import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { carryOutRestore } from "./carry-out-restore.ts"

test.each([
  { what: "a fork that fails leaves nothing of its instance", isFork: true, left: [] },
  { what: "a restore in place that fails leaves the instance's disks", isFork: false, left: ["1"] },
])("$what", async ({ isFork, left }) => {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-restore-"))
  const instance = join(dataDir, "instances", "vm")
  for (const generation of isFork ? ["2"] : ["1", "2"])
    await mkdir(join(instance, generation), { recursive: true })

  const failing = carryOutRestore(
    {
      kind: "restore",
      clusterId: "cluster",
      dataDir,
      storageDir: dataDir,
      instanceId: "vm",
      generation: 2,
      operationId: "operation",
      token: "token",
      leaseMs: 30_000,
      hypervisor: { name: "qemu", binary: "", qemuImg: "" },
      payloadDir: join(dataDir, "absent"),
      target: "Running",
      launch: { memoryMib: 16, vcpus: 1, disks: [] },
      isFork,
    },
    new AbortController().signal,
  )

  await expect(failing).rejects.toMatchObject({ code: "corrupted" })
  expect(await readdir(isFork ? join(dataDir, "instances") : instance)).toEqual(left)
  await rm(dataDir, { recursive: true })
})
