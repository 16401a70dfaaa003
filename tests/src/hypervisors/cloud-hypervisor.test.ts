import { mkdtemp } from "node:fs/promises"
import { rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { cloudHypervisor } from "@stillframe/hypervisors/cloud-hypervisor/vmm"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { afterAll, beforeAll } from "vitest"
import { vmmContract } from "./vmm-contract.ts"

let folder = ""
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "stillframe-fakes-"))
})
afterAll(async () => await rm(folder, { recursive: true }))

for (const version of ["v48.0", "v53.0"])
  vmmContract(`cloud-hypervisor ${version}, the fake`, async () => ({
    vmm: cloudHypervisor,
    binary: await fakeBinary(folder, "cloud-hypervisor", version),
  }))

const real = process.env["CLOUD_HYPERVISOR_BINARY"]
if (real !== undefined)
  vmmContract(`cloud-hypervisor, the real ${real}`, async () => ({ vmm: cloudHypervisor, binary: real }))
