import { lchown, mkdir, rm, symlink, writeFile } from "node:fs/promises"
import { join, relative, resolve } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { readRegular } from "@stillframe/storage/open-regular"
import { assertLoads } from "../file-vmm/assert-loads.ts"
import type { VmmLaunch } from "../file-vmm/vmm.ts"
import { giveFiles, letRead } from "../files/vm-user-files.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import { seenFrom } from "../process/seen-from.ts"
import { lastWords } from "../process/start-process.ts"
import { logHasWhy } from "../refusal.ts"
import { order, readVm } from "./api.ts"
import { assertState } from "./assert-state.ts"
import { assertWhole } from "./assert-whole.ts"
import { answerDeadlineMs } from "./deadline.ts"
import { jsonBytesMax, savedNames, vmFiles } from "./files.ts"
import { assertLookRaw } from "./raw-disks.ts"
import { rewriteConfig } from "./rewrite-config.ts"
import { startVmm } from "./start-vmm.ts"
import { diskFile, namesImageTypes } from "./vm-config.ts"

/**
 * Starts a process and loads a save into it. The VMM is shown a directory of links with a configuration of
 * its own, since what was saved may be another VM's as well.
 */
export async function restoreVm(options: VmmLaunch & { readonly saved: string }): Promise<ProcessIdentity> {
  const { dir, runAs } = options
  const saved = resolve(dir, options.saved)
  await assertWhole(saved)
  if (runAs !== undefined) {
    await giveFiles(options, diskFile, runAs)
    await letRead(saved)
  }
  const loading = join(dir, vmFiles.loading)
  try {
    await layOut(saved, loading, options)
    return await startVmm({ ...options, set: async (version) => await load(loading, version, options) })
  } catch (error) {
    throw await withReason(error, dir)
  } finally {
    await rm(loading, { recursive: true, force: true })
  }
}

async function layOut(saved: string, loading: string, { config, disks, runAs }: VmmLaunch): Promise<void> {
  // Leftovers of an earlier restore whose process was killed.
  await rm(loading, { recursive: true, force: true })
  await mkdir(loading, { mode: 0o700 })
  const written = JSON.parse(await readRegular(join(saved, savedNames.config), jsonBytesMax)) as Record<
    string,
    unknown
  >
  const text = JSON.stringify(rewriteConfig(written, config, disks))
  await writeFile(join(loading, savedNames.config), text, { mode: 0o600 })
  for (const name of [savedNames.state, savedNames.memory])
    await symlink(join(relative(loading, saved), name), join(loading, name))
  if (runAs === undefined) return
  // The directory last: what lies in it could be another's file from then on.
  for (const path of [join(loading, savedNames.config), loading]) await lchown(path, runAs.uid, runAs.gid)
}

async function load(
  loading: string,
  version: string,
  { dir, config, disks, ...host }: VmmLaunch,
): Promise<void> {
  assertLoads(version, host)
  const deadlineMs = answerDeadlineMs(config)
  if (!namesImageTypes(version)) await assertLookRaw(dir, disks)
  // Nothing but the directory: versions that don't know the other members leave them out without a word.
  await order(dir, "vm.restore", { deadlineMs, body: { source_url: `file://${seenFrom(dir, loading)}` } })
  await assertState(dir, "paused", deadlineMs)
  const vm = await readVm(dir, deadlineMs)
  const opened = (vm?.config.disks ?? []).map(({ path }) => path)
  const named = disks.map(diskFile)
  if (opened.length !== named.length || opened.some((path, index) => path !== named[index]))
    throw new StillframeError(
      "hypervisor_failed",
      `the VM was loaded with other disks than its own, so it was ended; ${logHasWhy}`,
      { said: opened.join(", ") },
    )
}

async function withReason(error: unknown, dir: string): Promise<unknown> {
  if (!(error instanceof StillframeError)) return error
  if (error.code !== "hypervisor_gone" && !error.message.includes("refused vm.restore")) return error
  const words = await lastWords(dir, vmFiles.log)
  return new StillframeError(
    "hypervisor_failed",
    `cloud-hypervisor did not load the snapshot; verify it: if it is intact, ${logHasWhy}`,
    { cause: error, said: `${error.said ?? error.message} (${words})` },
  )
}
