import { constants } from "node:fs"
import { open, rm } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { VmmLaunch } from "../file-vmm/vmm.ts"
import { giveFiles } from "../files/vm-user-files.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import { startProcess } from "../process/start-process.ts"
import { call, type InstanceInfo } from "./api.ts"
import { firecrackerFiles } from "./files.ts"
import { describeInstance, driveFile } from "./requests.ts"
import { parseVersion, type FirecrackerVersion } from "./version.ts"

const startTimeoutMs = 15_000
const startPollMs = 3

/**
 * Starts a process without a VM and waits for its API. Throws as `startProcess` does, `timeout` and
 * `cancelled`; then no process is left.
 */
export async function startFirecracker<T>(
  options: VmmLaunch,
  untilReady: (version: FirecrackerVersion) => Promise<T>,
): Promise<{ identity: ProcessIdentity; ready: T }> {
  const { dir, binary, identity, runAs, signal } = options
  // It refuses to bind a name that exists, and its older versions make no log.
  await rm(join(dir, firecrackerFiles.socket), { force: true })
  await makeLog(join(dir, firecrackerFiles.log), runAs)
  if (runAs !== undefined) await giveFiles(options, driveFile, runAs)
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

/** The directory may be its user's already, who may have given the name to something else. */
async function makeLog(path: string, runAs: VmmLaunch["runAs"]): Promise<void> {
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants
  const file = await open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
  try {
    if (runAs !== undefined) await file.chown(runAs.uid, runAs.gid)
  } finally {
    await file.close()
  }
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
