import { StillframeError } from "@stillframe/domain/errors"
import type { Vmm } from "../file-vmm/vmm.ts"
import type { GuestConfig } from "../launch-config.ts"
import { lastWords } from "../process/start-process.ts"
import { vzControl } from "./control.ts"
import { vzFiles } from "./files.ts"
import { thisHost, type VzHost } from "./host.ts"
import { probeVz } from "./probe.ts"
import { launchVz, restoreVz } from "./process.ts"
import type { Shim } from "./shim.ts"
import { stopVz } from "./stop.ts"

export interface VzSettings {
  readonly host: VzHost
  /** How long the shim may take for an answer: this, and as much for each MiB of the VM's memory. */
  readonly deadlineBaseMs: number
  readonly deadlineMsPerMib: number
}

/** 16 MiB/s: a slow disk, not a guess of the usual. */
const usual: VzSettings = { host: thisHost, deadlineBaseMs: 30_000, deadlineMsPerMib: 64 }

/**
 * Apple's Virtualization.framework, which is no program but a library: a shim, one process for each VM,
 * serves it on a socket. What differs from other VMMs: a launched guest runs before `begin`; a state is
 * loaded only by the Mac that saved it; and a fork has the machine identifier and the MAC address of its
 * source, without which its state can't be loaded, so two of them should not share a network.
 */
export function vzOn(change: Partial<VzSettings> = {}): Vmm {
  const { host, deadlineBaseMs, deadlineMsPerMib } = { ...usual, ...change }
  const shimOf = (dir: string, { memoryMib }: GuestConfig): Shim => ({
    dir,
    deadlineMs: deadlineBaseMs + memoryMib * deadlineMsPerMib,
  })
  return {
    probe: async (binary, signal) => await probeVz(host, binary, signal),
    launch: async (options) => await launchVz(host, shimOf(options.dir, options.config), options),
    begin: async (dir, config) => await begin(shimOf(dir, config)),
    control: (dir, config) => vzControl(shimOf(dir, config)),
    restore: async (options) => await restoreVz(host, shimOf(options.dir, options.config), options),
    stop: stopVz,
  }
}

export const vz: Vmm = vzOn()

async function begin(shim: Shim): Promise<void> {
  const control = vzControl(shim)
  const state = await control.state()
  if (state === "paused") await control.resume()
  if (state === "other")
    throw new StillframeError("hypervisor_failed", "the VM ended before its guest resumed; start it again", {
      said: await lastWords(shim.dir, vzFiles.log),
    })
}
