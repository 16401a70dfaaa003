import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, test } from "vitest"
import { readVmRecord, writeVmRecord } from "./vm-record.ts"

const process = { pid: 1, startTime: 1, bootId: "b" }

test.for([
  { memoryMib: 1e300, vcpus: 1 },
  { memoryMib: -5, vcpus: 1 },
  { memoryMib: 64, vcpus: 1_000_000 },
])("a record of $memoryMib MiB and $vcpus processors is not believed", async (size) => {
  await using opened = new AsyncDisposableStack()
  const dir = await mkdtemp(join(tmpdir(), "stillframe-record-"))
  opened.defer(() => rm(dir, { recursive: true }))

  await writeVmRecord(dir, { config: { ...size, disks: [] }, process })

  await expect(readVmRecord(dir)).rejects.toMatchObject({ code: "invalid_request" })
})
