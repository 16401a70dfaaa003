import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import type { ApiConfig } from "@stillframe/api/config"
import type { CaptureWorkerConfig } from "@stillframe/capture-worker/config"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { Problem } from "@stillframe/domain/problem"
import { namesIn } from "@stillframe/storage/directory"
import { freeBytes } from "@stillframe/storage/space"
import { patienceMs } from "@stillframe/testing/patience"
import { expect, test } from "vitest"
import type { Reply } from "../api/test-api.ts"
import { qemu } from "../hypervisors/test-vm.ts"
import { testStack, type TestStack } from "./test-stack.ts"

const tib = 1024 ** 4
const run = promisify(execFile)

/** The stack with a worker, and disks of qcow2, which take some KiB whatever size a guest sees. */
async function stackWith(change: Partial<CaptureWorkerConfig> = {}, api: Partial<ApiConfig> = {}) {
  await using opened = new AsyncDisposableStack()
  const stack = opened.use(await testStack({ api }))
  const worker = await stack.startCaptureWorker(change)
  const post = (path: string, body: object = {}): Promise<Reply> =>
    stack.ask("POST", path, { body, headers: { prefer: "wait=50" } })
  const launch = async (name: string, bytes: number, prefer = "wait=50"): Promise<Reply> => {
    const path = join(stack.imagesDir, `${bytes}.qcow2`)
    await run(qemu.qemuImg, ["create", "-q", "-f", "qcow2", path, String(bytes)])
    const disks = [{ path, format: "qcow2" }]
    const body = { name, launch: { image: "heartbeat", memory_mib: 16, disks } }
    return stack.ask("POST", "/instances", { body, headers: { prefer } })
  }
  const resources = opened.move()
  return { stack, worker, post, launch, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

const refused = {
  status: 409,
  body: { code: "insufficient_resources", message: expect.stringContaining("raise DISK_OVERCOMMIT") },
}

async function problemsOf(stack: TestStack): Promise<readonly Problem[]> {
  const hosts = await stack.api.request<{ problems: Problem[] }[]>("GET", "/hosts")
  return hosts.flatMap(({ problems }) => problems)
}

async function instancesOf(stack: TestStack): Promise<string[]> {
  return (await stack.api.request<InstanceResource[]>("GET", "/instances")).map(({ name }) => name)
}

test("a VM whose disk may outgrow the host's is launched with a warning, also when its answer is asked for again", async () => {
  await using host = await stackWith()
  const key = { "idempotency-key": "again" }

  const small = await host.launch("small", 1024 ** 2)
  const large = await host.launch("large", 1024 * tib)
  const fork = await host.stack.snapshot(large.body).then(({ id }) => host.stack.settled(id))
  const body = { name: "fork" }
  const forked = await host.stack.ask("POST", `/snapshots/${fork.id}/fork`, { body, headers: key })
  const again = await host.stack.ask("POST", `/snapshots/${fork.id}/fork`, { body, headers: key })

  expect([small.status, small.headers.get("x-warning")]).toEqual([201, null])
  expect(large.status).toBe(201)
  expect(large.headers.get("x-warning")).toMatch(
    /^the disks of this host's VMs may grow by 1 PiB, this VM's by 1 PiB of that, and DATA_DIR has room for [\d.]+ GiB: .*DISK_OVERCOMMIT=1/,
  )
  for (const reply of [forked, again])
    expect([reply.status, reply.headers.get("x-warning")]).toEqual([
      201,
      expect.stringContaining("may grow by 2 PiB, this VM's by 1 PiB"),
    ])
})

test("an answer that does not wait for the VM has the warning too, once the host has looked", async () => {
  await using host = await stackWith({}, { hostLookMs: patienceMs })

  const large = await host.launch("large", 1024 * tib, "respond-async")
  const small = await host.launch("small", 1024 ** 2, "respond-async")

  const warning = expect.stringContaining("may grow by 1 PiB, this VM's by 1 PiB")
  expect([large.status, large.headers.get("x-warning")]).toEqual([202, warning])
  expect([small.status, small.headers.get("x-warning")]).toEqual([
    202,
    expect.stringContaining("this VM's by 1 MiB"),
  ])
})

test("an answer that does not wait for the VM is not held until a busy host has looked", async () => {
  await using host = await stackWith({}, { hostLookMs: 0 })

  const { status, headers } = await host.launch("large", 1024 * tib, "respond-async")

  expect([status, headers.get("x-warning")]).toEqual([202, null])
})

test("with DISK_OVERCOMMIT such a VM is refused before anything is made, and so is a fork that is one too many", async () => {
  await using host = await stackWith({ diskOvercommit: 1 })
  const { stack } = host
  const most = Math.floor((0.6 * (await freeBytes(stack.dataDir))) / 512) * 512

  expect(await host.launch("whole", tib * 1024)).toMatchObject(refused)
  expect(await namesIn(join(stack.dataDir, "instances"))).toEqual([])
  const source = await host.launch("source", most)
  expect([source.status, source.headers.get("x-warning")]).toEqual([201, null])
  const { id } = await stack.snapshot(source.body).then((snapshot) => stack.settled(snapshot.id))

  expect(await host.launch("second", most)).toMatchObject(refused)
  expect(await host.post(`/snapshots/${id}/fork`, { name: "fork" })).toMatchObject(refused)
  expect(await instancesOf(stack)).toEqual(["source"])

  // A VM that does not run may be started again at any time.
  await host.post(`/instances/${source.body.id}/stop`)
  expect(await host.post(`/snapshots/${id}/fork`, { name: "fork" })).toMatchObject(refused)
  await stack.api.request("DELETE", `/instances/${source.body.id}`, undefined, { prefer: "wait=50" })
  expect(await host.post(`/snapshots/${id}/fork`, { name: "fork" })).toMatchObject({ status: 201 })
})

test("with DISK_OVERCOMMIT=2 the disks may grow by twice the free room", async () => {
  await using host = await stackWith({ diskOvercommit: 2 })
  const most = Math.floor((0.6 * (await freeBytes(host.stack.dataDir))) / 512) * 512

  for (const name of ["first", "second", "third"])
    expect([name, (await host.launch(name, most)).status]).toEqual([name, 201])
  expect(await host.launch("fourth", most)).toMatchObject(refused)
})

test("a host that has less room by now keeps VMs stopped or in Standby, and stops them all the same", async () => {
  await using host = await stackWith({ diskOvercommit: 1 })
  const bytes = 1024 ** 3
  const [stopped, away] = [await host.launch("stopped", bytes), await host.launch("away", bytes)]
  await host.post(`/instances/${stopped.body.id}/stop`)
  await host.post(`/instances/${away.body.id}/standby`)
  await host.worker[Symbol.asyncDispose]()
  const full = await host.stack.startCaptureWorker({ diskOvercommit: 1, spaceFloorBytes: 2 ** 60 })

  await expect
    .poll(() => problemsOf(host.stack))
    .toEqual([
      {
        code: "insufficient_storage",
        message: expect.stringContaining("may grow by 2 GiB, and DATA_DIR has room for 0 bytes"),
      },
    ])
  expect(await host.post(`/instances/${stopped.body.id}/start`)).toMatchObject(refused)
  expect(await host.post(`/instances/${away.body.id}/restore`)).toMatchObject(refused)
  expect((await host.post(`/instances/${away.body.id}/stop`)).body).toMatchObject({ state: "Stopped" })

  await full[Symbol.asyncDispose]()
  await host.stack.startCaptureWorker({ diskOvercommit: 1 })
  await expect.poll(() => problemsOf(host.stack)).toEqual([])
  for (const { body } of [stopped, away])
    expect(await host.post(`/instances/${body.id}/start`)).toMatchObject({ status: 200 })
})
