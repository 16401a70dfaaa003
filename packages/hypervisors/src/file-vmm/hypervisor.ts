import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { bootNames } from "../boot-names.ts"
import { assertSourcesUnchanged, readDisks, writeDisks, type Disk } from "../disks/disks.ts"
import { importSources } from "../disks/import-sources.ts"
import { layBootFiles, openImporter, openLaunchFiles, type PreparePlace } from "../disks/launch-files.ts"
import { keepRawDisks, layRawDisks, placedBytes, placeRawDisks } from "../disks/raw-disks.ts"
import { linkFile, linkFiles } from "../files/link-files.ts"
import type {
  CapturedMemory,
  Hypervisor,
  HypervisorTools,
  KeepPlace,
  Kept,
  KeptFile,
  VmLaunch,
} from "../hypervisor.ts"
import { checkGuestConfig, type GuestConfig } from "../launch-config.ts"
import { ensureRuns } from "../process/ensure-runs.ts"
import { findProcess } from "../process/find-process.ts"
import type { ProcessIdentity } from "../process/processes.ts"
import { readVmRecord, writeVmRecord } from "../process/vm-record.ts"
import { watchProcess } from "../process/watch-process.ts"
import { captureIntoPayload, savingName } from "./payload.ts"
import { removeStaged } from "./save-place.ts"
import type { Vmm, VmmLaunch } from "./vmm.ts"

/** In a VM's directory: what it was loaded from, for as long as its process lives. */
const savedName = "saved"

/** VMs whose disks are single raw files, and which are saved and loaded as files. */
export function vmmHypervisor(vmm: Vmm, host: HypervisorTools): Hypervisor {
  const { qemuImg, staging } = host
  const tools = startTools(host)

  async function started(
    { dir, config, disks }: VmLaunch,
    start: () => Promise<ProcessIdentity>,
  ): Promise<ProcessIdentity> {
    await writeDisks(dir, disks)
    const process = await start()
    await writeVmRecord(dir, { config, process })
    return process
  }

  return {
    canCancel: false,
    find: findProcess,
    prepare,
    async renew(dir) {
      // Whatever the VM was loaded from, nobody maps it any more: it may be as large as its memory.
      await rm(join(dir, savedName), { recursive: true, force: true })
      const disks = await disksIn(dir)
      await assertSourcesUnchanged(dir, disks)
      return disks
    },
    roomToBring: placedBytes,
    async bring(frozen, { config, from, dir, store, signal }) {
      await linkFiles(bootNames(config), from, dir, signal)
      return await placeRawDisks(frozen, { payload: from, dir, qemuImg, store, signal })
    },
    top: async (frozen) => [...frozen],
    disksAtRest: disksIn,
    keep,
    launch: (vm) => started(vm, () => vmm.launch({ ...vm, ...tools })),
    restore: (vm) => started(vm, () => load(vmm, vm, tools)),
    async begin(dir) {
      const { config } = await readVmRecord(dir)
      await vmm.begin(dir, config)
    },
    async settle(dir, { wasRunning, payload, onPresent }) {
      const { config } = await readVmRecord(dir)
      const control = vmm.control(dir, config)
      try {
        // Answered once a save that was under way is over: it can't be called off.
        await control.state()
        await onPresent?.()
        if (wasRunning) await ensureRuns(control)
      } finally {
        // Also of a VM that has ended, or that does not answer: what it may still be writing there belongs to
        // nothing.
        if (payload !== undefined) await removeStaged({ vmDir: dir, name: savingName(payload), staging })
      }
    },
    async capture(vm, into, request) {
      if (request.mode === "live")
        throw new StillframeError(
          "not_supported",
          "this hypervisor saves the memory of a paused VM only; use the paused capture",
        )
      const disks = await disksIn(vm.dir)
      // Before the pause: a snapshot on a changed file could never be used.
      await assertSourcesUnchanged(vm.dir, disks)
      return captureIntoPayload({ vmm, vm: { ...vm, disks }, into, request, staging })
    },
    async watch(dir) {
      const { config, process } = await readVmRecord(dir)
      return watchProcess(process, vmm.control(dir, config))
    },
    async stop(dir, process, grace) {
      await vmm.stop(dir, process, grace)
      await rm(join(dir, savedName), { recursive: true, force: true })
    },
  }
}

type StartTools = Pick<VmmLaunch, "binary" | "runAs" | "loadsOnly">

function startTools({ binary, runAs, loadsOnly }: HypervisorTools): StartTools {
  return {
    binary,
    ...(runAs !== undefined && { runAs }),
    ...(loadsOnly !== undefined && { loadsOnly }),
  }
}

function disksIn(dir: string): ReturnType<typeof readDisks> {
  return readDisks(dir, new Map())
}

async function prepare(config: GuestConfig, place: PreparePlace): Promise<Disk[]> {
  checkGuestConfig(config)
  await using files = await openLaunchFiles(config, place.rules)
  const importer = await openImporter(files, place)
  await layBootFiles(files, importer)
  return await layRawDisks(files.disks, { dir: place.dir, importer })
}

async function keep(frozen: readonly Disk[], { config, from, dir, store, signal }: KeepPlace): Promise<Kept> {
  await linkFiles(bootNames(config), from, dir, signal)
  const disks = await importSources(frozen, { from, dir, store, signal })
  await keepRawDisks(disks, { dir: from, payload: dir, store, signal })
  const files = [
    ...bootNames(config).map((name): KeptFile => ({ name, role: "boot" })),
    ...disks.flatMap(({ readonly, layers }) =>
      layers.map(({ file }): KeptFile => ({ name: file, role: readonly ? "base" : "disk" })),
    ),
  ]
  return { disks, files }
}

async function load(
  vmm: Vmm,
  { memory, ...vm }: VmLaunch & { readonly memory: CapturedMemory },
  tools: StartTools,
): Promise<ProcessIdentity> {
  const saved = join(vm.dir, savedName)
  await laySaved(vmm, memory, saved, vm.signal)
  const process = await vmm.restore({ ...vm, ...tools, saved: savedName })
  // It may be as large as the VM's memory, which is a copy of it now.
  if (vmm.mapsSaved !== true) await rm(saved, { recursive: true, force: true })
  return process
}

async function laySaved(
  { memoryName }: Vmm,
  memory: CapturedMemory,
  dir: string,
  signal: AbortSignal,
): Promise<void> {
  await mkdir(dir, { mode: 0o700 })
  for (const name of memory.state.names) await linkFile(join(memory.state.dir, name), join(dir, name), signal)
  if (memoryName !== undefined) await memory.place(join(dir, memoryName))
}
