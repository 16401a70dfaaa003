import { once } from "node:events"
import { join, relative, resolve } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { assertLoads } from "../file-vmm/assert-loads.ts"
import type { VmmLaunch } from "../file-vmm/vmm.ts"
import { letRead } from "../files/vm-user-files.ts"
import { endProcess, type ProcessIdentity } from "../process/processes.ts"
import { lastWords } from "../process/start-process.ts"
import { logHasWhy } from "../refusal.ts"
import { call, deadlineMs, vmState } from "./api.ts"
import { checkDisks, checkSaved } from "./check-saved.ts"
import { firecrackerFiles } from "./files.ts"
import { describeConfig, driveFile, loadSnapshot } from "./requests.ts"
import { startFirecracker } from "./start.ts"
import type { FirecrackerVersion } from "./version.ts"

/** Firecracker ends by itself when it could not load. */
const endGraceMs = 500

type Restore = VmmLaunch & { readonly saved: string }

/**
 * Loads a snapshot into a process of its own, whose memory is then the file in `saved`, mapped and never
 * written. Throws `hypervisor_failed` with what is wrong with the files, before there is a process, or with
 * Firecracker's reason in `said`; then no process is left.
 */
export async function restoreFirecracker(options: Restore): Promise<ProcessIdentity> {
  const { dir, config, disks, runAs, signal } = options
  const place = relative(dir, resolve(dir, options.saved))
  await checkDisks(dir, disks)
  // A memory file of the wrong size would end the VM with SIGBUS at some later page.
  await checkSaved(join(dir, place), config.memoryMib)
  if (runAs !== undefined) await letRead(join(dir, place))
  const { identity, ready } = await startFirecracker(options, async (version) => version)
  try {
    await Promise.race([load(options, place, ready), abortOf(signal)])
    return identity
  } catch (error) {
    await endProcess(identity, { graceMs: endGraceMs })
    if (signal.aborted) throw new StillframeError("cancelled", "the restore was cancelled", { cause: error })
    throw await withLastWords(error, dir)
  }
}

async function load(
  { dir, config, disks, ...host }: Restore,
  place: string,
  version: FirecrackerVersion,
): Promise<void> {
  assertLoads(version.text, host)
  const withinMs = deadlineMs(config)
  await call(dir, loadSnapshot(version, place), withinMs)
  const state = await vmState(dir, withinMs)
  if (state !== "paused")
    throw new StillframeError("hypervisor_failed", `the VM is ${state} after its memory was loaded`)
  const { drives } = await call<{ drives: { path_on_host?: string | null }[] }>(dir, describeConfig, withinMs)
  const ours = new Set(disks.map(driveFile))
  const foreign = drives.find(({ path_on_host: path }) => !ours.has(path ?? ""))
  if (foreign !== undefined)
    throw new StillframeError(
      "hypervisor_failed",
      `the snapshot opened a file that is not a disk of this VM, so the VM was ended; ${logHasWhy}`,
      { said: foreign.path_on_host ?? "a disk without a file" },
    )
}

async function abortOf(signal: AbortSignal): Promise<never> {
  if (!signal.aborted) await once(signal, "abort")
  throw signal.reason
}

/** If the connection ended without an answer, the reason is in the logs. */
async function withLastWords(error: unknown, dir: string): Promise<unknown> {
  if (!(error instanceof StillframeError) || error.code !== "hypervisor_gone") return error
  const words = await lastWords(dir, firecrackerFiles.errors, firecrackerFiles.log)
  return new StillframeError(
    "hypervisor_failed",
    `Firecracker ended while it loaded the snapshot; verify the snapshot: if it is intact, ${logHasWhy}`,
    { cause: error, said: words },
  )
}
