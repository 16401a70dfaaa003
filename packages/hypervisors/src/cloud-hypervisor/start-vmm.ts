import { rm } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { VmmLaunch } from "../file-vmm/vmm.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import { lastWords, startProcess } from "../process/start-process.ts"
import { logHasWhy } from "../refusal.ts"
import { readVersion } from "./api.ts"
import { vmFiles } from "./files.ts"

export interface StartVmm extends Pick<VmmLaunch, "dir" | "binary" | "runAs" | "signal"> {
  readonly identity?: string
  /** Called once its API answers. When it rejects, the process is ended. */
  readonly set: (version: string) => Promise<void>
}

const startTimeoutMs = 15_000
const startPollMs = 3

/**
 * Starts a process that has no VM yet, and has `set` give it one. Throws as `startProcess` does, `timeout`,
 * `cancelled` and what `set` throws; then no process is left.
 */
export async function startVmm(options: StartVmm): Promise<ProcessIdentity> {
  const { dir, binary, runAs, signal, identity, set } = options
  // Before v53 a socket that a dead process left keeps the next one from listening.
  await rm(join(dir, vmFiles.socket), { force: true })
  const started = await startProcess({
    program: "cloud-hypervisor",
    setting: "CLOUD_HYPERVISOR_BINARY",
    binary,
    args: ["--api-socket", `path=${vmFiles.socket}`],
    dir,
    log: vmFiles.log,
    ...(identity !== undefined && { identity }),
    runAs,
    untilReady: async () => {
      const version = await versionWhenReady(dir, signal)
      await unlessAborted(signal, async () => await set(version))
    },
  })
  return started.identity
}

async function versionWhenReady(dir: string, signal: AbortSignal): Promise<string> {
  for (const end = performance.now() + startTimeoutMs; ; await delay(startPollMs)) {
    assertWanted(signal)
    try {
      return await readVersion(dir, Math.max(1, end - performance.now()))
    } catch (error) {
      if (!(error instanceof StillframeError) || error.code !== "hypervisor_gone") throw error
      if (performance.now() > end)
        throw new StillframeError(
          "timeout",
          `cloud-hypervisor opened no API in ${startTimeoutMs} ms; ${logHasWhy}`,
          { cause: error, said: await lastWords(dir, vmFiles.log) },
        )
    }
  }
}

/** Gives up the wait, not the work: whoever gives up ends the process. */
async function unlessAborted(signal: AbortSignal, work: () => Promise<void>): Promise<void> {
  const aborted = Promise.withResolvers<never>()
  const onAbort = (): void => aborted.reject(cancelled(signal))
  signal.addEventListener("abort", onAbort, { once: true })
  try {
    assertWanted(signal)
    await Promise.race([work(), aborted.promise])
  } finally {
    signal.removeEventListener("abort", onAbort)
  }
}

function assertWanted(signal: AbortSignal): void {
  if (signal.aborted) throw cancelled(signal)
}

const cancelled = (signal: AbortSignal): StillframeError =>
  new StillframeError("cancelled", "the start was cancelled", { cause: signal.reason })
