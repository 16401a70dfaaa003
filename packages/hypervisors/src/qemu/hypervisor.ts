import { readdir } from "node:fs/promises"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { assertSourcesUnchanged, isOverlay, readDisksAtRest, type Disk } from "../disks/disks.ts"
import { linkLayers } from "../disks/image-store.ts"
import { importSources } from "../disks/import-sources.ts"
import type { Hypervisor, HypervisorTools, Kept, KeepPlace } from "../hypervisor.ts"
import type { GuestConfig, LaunchConfig } from "../launch-config.ts"
import { findQemu } from "../process/find-qemu.ts"
import { captureQemu } from "./capture/capture.ts"
import { endCopiers } from "./capture/copiers.ts"
import { addOverlays, keepOverlay, layerNames, renewTops, sealLayers } from "./layers/layers.ts"
import { withMonitor } from "./monitor/qmp.ts"
import { endMigration, ensureRunning } from "./monitor/resume.ts"
import { watchQemu } from "./monitor/watch.ts"
import { qemuFiles } from "./process/command.ts"
import { launchQemu } from "./process/launch.ts"
import { immutableFiles, prepareLaunch, startGuest } from "./process/prepare-launch.ts"
import { restoreQemu } from "./process/restore.ts"
import { stopQemu } from "./process/stop.ts"

/**
 * VMs that run on QEMU: their disks are chains of layers, their memory is a stream. `answerMs`: how long an
 * answer is waited for in a capture; for tests.
 */
export function qemuHypervisor(
  { binary, qemuImg, runAs }: HypervisorTools,
  { answerMs }: { readonly answerMs?: number } = {},
): Hypervisor {
  const tools = { binary, ...(runAs !== undefined && { runAs }) }
  return {
    canCancel: true,
    find: findQemu,
    prepare: (config, place) => prepareLaunch(ofQemu(config), { ...place, qemuImg }),
    async renew(dir, signal) {
      const atRest = await readDisksAtRest(dir)
      await assertSourcesUnchanged(dir, atRest)
      return renewTops(atRest, { dir, qemuImg, signal })
    },
    // A raw disk of another hypervisor becomes the lowest layer of a chain.
    roomToBring: async () => 0,
    async bring(frozen, { config, from, dir, ...linking }) {
      await linkLayers(immutableFiles(config, frozen), { from, to: dir, ...linking })
      return frozen
    },
    top: (frozen, place) => addOverlays(frozen, { ...place, qemuImg }),
    disksAtRest: readDisksAtRest,
    keep,
    async capture({ dir }, into, request) {
      const memoryFile = join(into.dir, into.memoryName)
      const captured = await captureQemu({ ...request, dir, memoryFile, qemuImg, answerMs })
      return { ...captured, files: [{ name: into.memoryName, role: "memory" }] }
    },
    launch: (vm) => launchQemu({ ...vm, ...tools, config: ofQemu(vm.config) }),
    restore: ({ memory, ...vm }) =>
      restoreQemu({ ...vm, ...tools, config: ofQemu(vm.config), memory: memory.stream() }),
    begin: startGuest,
    async settle(dir, { wasRunning, onPresent }) {
      // One that hangs may keep QEMU from answering at all.
      await endCopiers(dir)
      await withMonitor(dir, qemuFiles.command, async (monitor) => {
        await onPresent?.()
        await (wasRunning ? ensureRunning(monitor) : endMigration(monitor))
      })
    },
    watch: watchQemu,
    stop: stopQemu,
  }
}

/** The stored launch of a QEMU VM. */
function ofQemu(config: GuestConfig): LaunchConfig {
  if ("machine" in config) return config as LaunchConfig
  throw new StillframeError("invalid_request", "the VM was not launched by QEMU: it has no machine type")
}

async function keep(frozen: readonly Disk[], { config, from, dir, store, signal }: KeepPlace): Promise<Kept> {
  const disks = await importSources(frozen, { from, dir, store, signal })
  const files = immutableFiles(config, disks)
  // The capture of an attached VM has left its disks there already.
  const there = new Set(await readdir(dir))
  const missing = files.filter(({ file }) => !there.has(file))
  const isOwnOverlay = ({ file, sha256 }: (typeof missing)[number]): boolean =>
    sha256 === undefined && isOverlay(file)
  for (const { file } of missing.filter(isOwnOverlay)) await keepOverlay(file, { from, dir, signal })
  const others = missing.filter((layer) => !isOwnOverlay(layer))
  await linkLayers(others, { from, to: dir, store, signal })
  await sealLayers(disks, dir)
  const layers = new Set(layerNames(disks))
  const names = [...new Set(files.map(({ file }) => file))]
  return {
    disks,
    files: names.map((name) => ({
      name,
      role: name.endsWith(".base") ? "base" : layers.has(name) ? "disk" : "boot",
    })),
  }
}
