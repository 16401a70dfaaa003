import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { ProcessIdentity } from "../processes.ts"
import { startProcess } from "../start-process.ts"
import type { VmmLaunch } from "../vmm.ts"
import { call, type InstanceInfo } from "./api.ts"
import { firecrackerFiles } from "./files.ts"
import { giveToWrite } from "./own-files.ts"
import { describeInstance, driveFile } from "./requests.ts"
import { parseVersion, type FirecrackerVersion } from "./version.ts"

const startTimeoutMs = 15_000
const startPollMs = 3

/** Starts a process without a VM and waits for its API. Throws as `startProcess` does, `timeout` and `cancelled`; then no process is left. */
export async function startFirecracker<T>(
  options: VmmLaunch,
  untilReady: (version: FirecrackerVersion) => Promise<T>,
): Promise<{ identity: ProcessIdentity; ready: T }> {
  const { dir, binary, disks, identity, runAs, signal } = options
  // It refuses to bind a name that exists, and its older versions make no log.
  await rm(join(dir, firecrackerFiles.socket), { force: true })
  await writeFile(join(dir, firecrackerFiles.log), "", { mode: 0o600 })
  const written = disks.filter(({ readonly }) => !readonly).map(driveFile)
  if (runAs !== undefined) await giveToWrite(dir, [firecrackerFiles.log, ...written], runAs)
  return await startProcess({
    program: "Firecracker",
    setting: "FIRECRACKER_BINARY",
    binary,
    args: ["--api-sock", firecrackerFiles.socket, "--log-path", firecrackerFiles.log],
    dir,
    log: firecrackerFiles.errors,
    console: firecrackerFiles.serial,
    ownLog: firecrackerFiles.log,
    // Its `--id` holds 64 characters, too few for ours.
    identity,
    runAs,
    untilReady: async () => await untilReady(await apiAnswers(dir, signal)),
  })
}

async function apiAnswers(dir: string, signal: AbortSignal): Promise<FirecrackerVersion> {
  for (const end = performance.now() + startTimeoutMs; ; await delay(startPollMs)) {
    if (signal.aborted) throw new StillframeError("cancelled", "the launch was cancelled")
    try {
      const { vmm_version } = await call<InstanceInfo>(dir, describeInstance, startTimeoutMs)
      return parseVersion(vmm_version)
    } catch (error) {
      if (!(error instanceof StillframeError) || error.code !== "hypervisor_gone") throw error
      if (performance.now() > end)
        throw new StillframeError(
          "timeout",
          `Firecracker opened no API in ${startTimeoutMs} ms; look at the VM's ${firecrackerFiles.log}`,
        )
    }
  }
}
