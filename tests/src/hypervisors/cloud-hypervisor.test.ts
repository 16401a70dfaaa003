import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { cloudHypervisor as vmm } from "@stillframe/hypervisors/cloud-hypervisor/vmm"
import { fakeBinary } from "@stillframe/testing/fake-binary"
import { afterAll } from "vitest"
import { vmmContract } from "./vmm-contract.ts"

const folder = await mkdtemp(join(tmpdir(), "stillframe-fakes-"))
afterAll(async () => await rm(folder, { recursive: true }))

for (const version of ["v48.0", "v53.0"])
  vmmContract(`a fake cloud-hypervisor ${version}`, {
    vmm,
    binary: await fakeBinary(folder, "cloud-hypervisor", version),
  })

const real = process.env["CLOUD_HYPERVISOR_BINARY"]
if (real !== undefined) vmmContract(`the real cloud-hypervisor ${real}`, { vmm, binary: real })
