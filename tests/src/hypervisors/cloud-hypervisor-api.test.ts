import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { cloudHypervisor as vmm } from "@stillframe/hypervisors/cloud-hypervisor/vmm"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { expect, test } from "vitest"
import { describedBy, type Exchange } from "./openapi-description.ts"
import { ground, never } from "./test-vm.ts"
import { forkVm, saveVm, startVm } from "./vmm-vm.ts"

const description = (version: string): URL =>
  new URL(`./specs/cloud-hypervisor/${version}.yaml`, import.meta.url)

test.each(["v48.0", "v53.0"])(
  "what a VM's life says and hears is what the official description of %s has",
  async (version) => {
    await using place = await ground()
    const binary = await fakeBinary(place.root, "cloud-hypervisor", version)
    const vm = await startVm(place, { vmm, binary })
    const save = await saveVm(place, vm)
    await vm.control.resume()
    await vm.control.resume()
    const fork = await forkVm(place, { vmm, binary }, save, "fork")
    for (const { dir, process } of [vm, fork])
      await vmm.stop(dir, process, { guestMs: 50, processMs: 5_000, signal: never })

    const exchanges = [...(await exchangesIn(vm.dir)), ...(await exchangesIn(fork.dir))]

    const wrong = await describedBy(description(version))
    expect(exchanges.flatMap(wrong)).toEqual([])
    expect(new Set(exchanges.map(({ path }) => path))).toEqual(
      new Set([
        "/vmm.ping",
        "/vm.create",
        "/vm.info",
        "/vm.boot",
        "/vm.pause",
        "/vm.snapshot",
        "/vm.resume",
        "/vm.restore",
        "/vm.power-button",
        "/vmm.shutdown",
      ]),
    )
  },
)

test("a misspelt member, a path or a body that is not described would be seen", async () => {
  const wrong = await describedBy(description("v53.0"))
  const exchange = (path: string, body: object | string): Exchange => ({
    method: "PUT",
    path,
    body: typeof body === "string" ? body : JSON.stringify(body),
    status: 204,
  })

  expect(wrong(exchange("/vm.create", { payload: {}, serial: { mode: "File", path: "x" } }))).toHaveLength(1)
  expect(wrong(exchange("/vm.create", { payload: {}, memory: { size: "64M" } }))).toHaveLength(1)
  expect(wrong(exchange("/vm.freeze", ""))).toHaveLength(1)
  expect(wrong(exchange("/vm.pause", {}))).toHaveLength(1)
})

async function exchangesIn(dir: string): Promise<Exchange[]> {
  const lines = (await readFile(join(dir, "exchanges.jsonl"), "utf8")).trim().split("\n")
  return lines.map((line) => JSON.parse(line) as Exchange)
}
