import { execFile } from "node:child_process"
import { randomUUID } from "node:crypto"
import {
  chmod,
  link,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { sourceFacts, type Disk } from "@stillframe/hypervisors/disks/disks"
import { hostImages, removeUnusedImages } from "@stillframe/hypervisors/disks/image-store"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { qemu, untilTicks } from "../hypervisors/test-vm.ts"
import { testStack, type TestStack } from "./test-stack.ts"

/** The part of a payload's manifest that these tests look at, or change. */
interface PayloadManifest {
  files: { name: string; role: string; bytes: number; sha256?: string }[]
  disks: Disk[]
}

const run = promisify(execFile)
const diskBytes = 1024 ** 2
const wait = { prefer: "wait=55" }

let stack: TestStack
beforeAll(async () => {
  stack = await testStack({ api: { snapshotCreate: "sync" } })
  await stack.startCaptureWorker()
  await stack.startCompressionWorker()
})
afterAll(() => stack[Symbol.asyncDispose]())

function verify({ id }: SnapshotResource): Promise<Reply> {
  return stack.ask("POST", `/snapshots/${id}/verify`, { headers: wait })
}

/** Its disks alone: no guest has to boot for them to be looked at. */
async function forkDisks({ id }: SnapshotResource): Promise<Reply> {
  const reply = await stack.ask("POST", `/snapshots/${id}/fork`, {
    body: { name: `disks-${randomUUID()}`, target_state: "Stopped" },
  })
  if (reply.status === 201) await stack.api.request("DELETE", `/instances/${reply.body.id}`)
  return reply
}

async function forkRuns({ id }: SnapshotResource, name: string): Promise<void> {
  const fork = await stack.api.request<InstanceResource>("POST", `/snapshots/${id}/fork`, { name })
  await untilTicks(stack.generationDir(fork), 3)
  await stack.api.request("DELETE", `/instances/${fork.id}`)
}

async function rawFile(name: string): Promise<string> {
  const path = join(stack.imagesDir, name)
  await writeFile(path, Buffer.alloc(diskBytes, 7))
  await backInTime(path)
  return path
}

/** To a time that can be set again. */
async function backInTime(path: string): Promise<void> {
  await utimes(path, 1_000_000_000, 1_000_000_000)
}

async function layersOf(dir: string, disk: number): Promise<unknown> {
  const disks = JSON.parse(await readFile(join(dir, "disks.json"), "utf8")) as Disk[]
  return disks[disk]?.layers.map(({ file, format }) => `${file} ${format}`)
}

test("nothing that happens to the caller's files matters to a VM's snapshots, forks and verifications", async () => {
  const raw = await rawFile("gold.raw")
  const lower = await rawFile("lower.raw")
  const upper = join(stack.imagesDir, "upper.qcow2")
  await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", "-b", lower, "-F", "raw", upper])
  const kernel = join(stack.imagesDir, "kernel.elf")
  await writeFile(kernel, await readFile(join(stack.imagesDir, "heartbeat.elf")))
  const source = await stack.launch("source", {
    kernel,
    memory_mib: 16,
    disks: [
      { path: raw, format: "raw" },
      { path: upper, format: "qcow2" },
    ],
  })
  const dir = stack.generationDir(source)
  const before = await stack.snapshot(source)
  const callers = [raw, lower, upper, kernel]

  expect((await Promise.all(callers.map((path) => stat(path)))).map(({ nlink }) => nlink)).toEqual([
    1, 1, 1, 1,
  ])
  expect(await layersOf(dir, 1)).toEqual(["disk1.0.qcow2 qcow2", "disk1.base qcow2", "disk1.1.base raw"])
  for (const path of callers) {
    await utimes(path, 1, 1)
    await chmod(path, 0o600)
    await writeFile(path, Buffer.alloc(diskBytes, 8), { flag: "r+" })
  }
  expect((await forkDisks(before)).status).toBe(201)
  const edited = await stack.snapshot(source)
  for (const path of callers) {
    await truncate(path, 1)
    await rename(path, `${path}.old`)
    await rm(`${path}.old`)
  }
  for (const snapshot of [before, edited]) {
    expect((await verify(snapshot)).body.error).toBeUndefined()
    expect((await forkDisks(snapshot)).status).toBe(201)
  }
  await forkRuns(before, "fork")

  await stack.api.request("POST", `/instances/${source.id}/stop`)
  await stack.api.request("POST", `/instances/${source.id}/start`, {})
  await untilTicks(dir, 3)
  await stack.api.request("DELETE", `/instances/${source.id}`)
})

test("VMs and snapshots that use the same content share one image, which goes with the last of them", async () => {
  const names = ["one", "two"]
  const vms: InstanceResource[] = []
  for (const name of names) {
    const path = join(stack.imagesDir, `${name}.raw`)
    await writeFile(path, Buffer.alloc(diskBytes, 5))
    vms.push(
      await stack.launch(name, { image: "heartbeat", memory_mib: 16, disks: [{ path, format: "raw" }] }),
    )
  }
  const [one, two] = vms as [InstanceResource, InstanceResource]
  const snapshot = await stack.snapshot(one)
  const dirs = [stack.generationDir(one), stack.generationDir(two), await stack.payloadDir(snapshot.id)]
  const images = await Promise.all(dirs.map((dir) => stat(join(dir, "disk0.base"))))
  const store = hostImages(stack.dataDir)
  const sha256 = await imageOf(dirs[0] ?? "")

  expect(new Set(images.map(({ ino }) => ino)).size).toBe(1)
  expect(images[0]).toMatchObject({ nlink: 4, mode: 0o100444 })
  expect(snapshot.shared_bytes).toBeGreaterThanOrEqual(diskBytes)
  expect(snapshot.shared_bytes).toBeLessThan(snapshot.stored_bytes ?? 0)

  await stack.api.request("DELETE", `/instances/${one.id}`)
  await stack.api.request("DELETE", `/instances/${two.id}`)
  await removeUnusedImages(store)
  expect(await readdir(store.dir)).toContain(sha256)
  await stack.api.request("DELETE", `/snapshots/${snapshot.id}`)
  await stack.until(async () =>
    (await readdir(join(stack.storageDir, "snapshots"))).includes(snapshot.id) ? undefined : true,
  )
  await removeUnusedImages(store)
  expect(await readdir(store.dir)).not.toContain(sha256)
})

async function imageOf(dir: string): Promise<string | undefined> {
  const [disk] = JSON.parse(await readFile(join(dir, "disks.json"), "utf8")) as Disk[]
  return disk?.layers.at(-1)?.sha256
}

describe("of a VM that an earlier version launched, whose caller's file is linked", () => {
  let path: string
  let vm: InstanceResource
  let snapshot: SnapshotResource

  beforeAll(async () => {
    path = await rawFile("linked.raw")
    vm = await stack.launch("earlier", {
      image: "heartbeat",
      memory_mib: 16,
      disks: [{ path, format: "raw" }],
    })
    const record = join(stack.generationDir(vm), "disks.json")
    const disks = JSON.parse(await readFile(record, "utf8")) as Disk[]
    await writeFile(record, JSON.stringify(await linked(disks, stack.generationDir(vm))))
    snapshot = await stack.snapshot(vm)
  })

  /** As an earlier version laid and recorded them. */
  async function linked(disks: readonly Disk[], dir: string): Promise<Disk[]> {
    await rm(join(dir, "disk0.base"))
    await link(path, join(dir, "disk0.base"))
    const sources = [{ path, link: "disk0.base", ...(await sourceFacts(path)) }]
    return disks.map((disk) => ({
      ...disk,
      sources,
      layers: disk.layers.map(({ file, format }) => ({ file, format })),
    }))
  }

  /** A snapshot as an earlier version published it. */
  async function earlierSnapshot(): Promise<SnapshotResource> {
    const made = await stack.snapshot(vm)
    const dir = await stack.payloadDir(made.id)
    const manifest = JSON.parse(await readFile(join(dir, "manifest.json"), "utf8")) as PayloadManifest
    const files = manifest.files.map(({ sha256, ...file }) =>
      file.role === "base" ? file : { ...file, sha256 },
    )
    const disks = await linked(manifest.disks, dir)
    await writeFile(join(dir, "manifest.json"), JSON.stringify({ ...manifest, files, disks }))
    // Such a version recorded none.
    await stack.db.updateTable("snapshots").set({ manifest_sha256: null }).where("id", "=", made.id).execute()
    return made
  }

  async function edit(value: number): Promise<void> {
    await writeFile(path, Buffer.alloc(diskBytes, value), { flag: "r+" })
  }

  test("a capture imports what it needs of the file, so nothing of the snapshot is the caller's", async () => {
    const dir = await stack.payloadDir(snapshot.id)
    const manifest = JSON.parse(await readFile(join(dir, "manifest.json"), "utf8")) as PayloadManifest

    expect(manifest.disks).toMatchObject([
      { sources: [], layers: [{}, { file: "disk0.base", sha256: expect.any(String) }] },
    ])
    expect((await stat(join(dir, "disk0.base"))).ino).not.toBe((await stat(path)).ino)
    expect((await verify(snapshot)).body.error).toBeUndefined()
    await forkRuns(snapshot, "of-earlier")
  })

  test("an earlier snapshot is used by what its file holds once it was verified, whatever its times say", async () => {
    const earlier = await earlierSnapshot()
    expect((await forkDisks(earlier)).status).toBe(201)
    expect((await verify(earlier)).body.error).toBeUndefined()

    await utimes(path, 1, 1)
    expect((await verify(earlier)).body.error).toBeUndefined()
    expect((await forkDisks(earlier)).status).toBe(201)

    await edit(8)
    expect(await forkDisks(earlier)).toMatchObject({
      status: 409,
      body: { message: expect.stringContaining(path) },
    })
    await edit(7)
    expect((await forkDisks(earlier)).status).toBe(201)
    await backInTime(path)
  })

  test("an earlier snapshot that was never verified is not called damaged for a change of times, and not used", async () => {
    const earlier = await earlierSnapshot()
    await utimes(path, 1, 1)

    expect((await verify(earlier)).body).not.toHaveProperty("corrupted_at")
    expect(await forkDisks(earlier)).toMatchObject({
      status: 409,
      body: { message: expect.stringContaining("was changed") },
    })

    await backInTime(path)
    expect((await forkDisks(earlier)).status).toBe(201)
  })

  test("a capture on a file that was edited since fails before any pause, and says so", async () => {
    await edit(9)

    const refused = await stack.ask("POST", `/instances/${vm.id}/snapshots`, { body: { kind: "Standby" } })

    expect(refused).toMatchObject({
      status: 409,
      body: { message: expect.stringContaining(`${path} was changed`) },
    })
    const failed = await stack.db.selectFrom("snapshots").selectAll().where("status", "=", "failed").execute()
    expect(failed).toMatchObject([{ pause_ms: null, error_code: "conflict" }])
    // Snapshots that were taken before hold their own.
    await forkRuns(snapshot, "as-before")
  })
})
