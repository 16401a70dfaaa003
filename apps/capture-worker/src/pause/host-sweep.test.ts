import { once } from "node:events"
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { firecrackerFiles } from "@stillframe/hypervisors/firecracker/files"
import { writeVmRecord } from "@stillframe/hypervisors/process/vm-record"
import { createLogger } from "@stillframe/runtime/logger"
import { expect, test } from "vitest"
import { startHostSweep } from "./host-sweep.ts"
import { writePauseRecord } from "./pause-record.ts"

const dead = { pid: 2 ** 22 + 1, startTime: 1, bootId: "another" }

/** A VM that a dead captor left in a pause. */
async function leavePaused(dataDir: string, instanceId: string): Promise<void> {
  await writePauseRecord(join(dataDir, "instances", instanceId), {
    clusterId: dataDir,
    instanceId,
    generation: 1,
    hypervisor: { name: "firecracker", binary: "", qemuImg: "" },
    token: "token",
    captor: dead,
    wasRunning: true,
    deadlineUptime: 0,
    limitUptime: 0,
  })
}

test("a VM that does not answer keeps no other one from being taken over", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "stillframe-sweep-"))
  const homeOf = (id: string) => join(dataDir, "instances", id, "1")
  for (const id of ["silent", "gone"]) await mkdir(homeOf(id), { recursive: true })
  const config = { memoryMib: 16, vcpus: 1, disks: [] }
  await writeVmRecord(homeOf("silent"), { config, process: dead })
  const server = createServer().listen(join(homeOf("silent"), firecrackerFiles.socket))
  const connected = once(server, "connection") as Promise<[Socket]>
  const sweep = await startHostSweep(dataDir, createLogger({ service: "test", level: "silent" }), new Map())
  try {
    await leavePaused(dataDir, "silent")
    await connected

    await leavePaused(dataDir, "gone")

    const left = () => readdir(join(dataDir, "instances", "gone"))
    await expect.poll(left, { timeout: 5_000 }).toEqual(["1"])
  } finally {
    server.close()
    const [connection] = await connected
    connection.destroy()
    await sweep[Symbol.asyncDispose]()
    await rm(dataDir, { recursive: true })
  }
})
