import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"
import { layersUnmergedMax, overlaysOf, readDisksAtRest } from "@stillframe/hypervisors/disks/disks"
import type { Logger } from "@stillframe/runtime/logger"
import { generationDir } from "@stillframe/storage/layout"
import type { MergeOrder, Order } from "../executor/orders.ts"
import type { Captors } from "./executors/captors.ts"

/** From here on another layer costs the guest more than a wait costs the next operation. */
const layersBearable = 4 * layersUnmergedMax

type Vm = Omit<MergeOrder, "kind">

/**
 * Shortens the disk chains of this host's VMs while nothing else is asked of them. No operation of the
 * database's: what is to be done is seen on the disk, it may happen at any time or not at all, and it gives
 * way to everything else.
 */
export interface Merges extends AsyncDisposable {
  /** Looks at a running VM's chains after a while, and merges the long ones. */
  consider(vm: Vm): void
  /**
   * Resolves when no merge holds the VM: it is cancelled, unless the chain has become so long that it is
   * worth its end.
   */
  giveWay(instanceId: string): Promise<void>
}

/** `quietMs`: so that a row of captures is not held up by merges that each of them cancels. */
export function openMerges(captors: Captors, { log, quietMs }: { log: Logger; quietMs: number }): Merges {
  const held = new Map<string, { stop: AbortController; ended: Promise<void>; layers: number }>()

  async function mergeIfLong(vm: Vm, entry: { layers: number }, signal: AbortSignal): Promise<void> {
    await delay(quietMs, undefined, { signal })
    entry.layers = await longestChain(vm)
    if (entry.layers <= layersUnmergedMax) return
    const { clusterId, dataDir, instanceId, generation } = vm
    const order = { kind: "merge", clusterId, dataDir, instanceId, generation } as const
    await captors.order(order, { signal, onLost: async () => {} })
    log.info({ instanceId: vm.instanceId, layers: entry.layers }, "disk layers merged")
  }

  async function giveWay(instanceId: string): Promise<void> {
    const merge = held.get(instanceId)
    if (merge === undefined) return
    if (merge.layers <= layersBearable) merge.stop.abort()
    await merge.ended
  }

  return {
    giveWay,
    consider(vm) {
      if (held.has(vm.instanceId)) return
      const stop = new AbortController()
      const entry = { stop, layers: 0, ended: Promise.resolve() }
      held.set(vm.instanceId, entry)
      entry.ended = mergeIfLong(vm, entry, stop.signal)
        .catch((err: unknown) => {
          if (!stop.signal.aborted && !isGone(err))
            log.warn({ err, instanceId: vm.instanceId }, "disk layers not merged")
        })
        .finally(() => held.delete(vm.instanceId))
    },
    async [Symbol.asyncDispose]() {
      const merges = [...held.values()]
      for (const { stop } of merges) stop.abort()
      await Promise.all(merges.map(({ ended }) => ended))
    },
  }
}

/** Captors whose orders go before merges, and are followed by a look at whether one is due. */
export function beforeMerges(captors: Captors, merges: Merges): Pick<Captors, "order"> {
  return {
    async order(order, options) {
      await merges.giveWay(order.instanceId)
      const result = await captors.order(order, options)
      if (lengthensChains(order)) merges.consider(order)
      return result
    },
  }
}

/** The chains of an attached VM are its owner's. */
function lengthensChains(order: Order): boolean {
  if (order.kind === "capture") return order.source.state !== "Attached"
  return order.kind === "start" || order.kind === "restore"
}

async function longestChain({ dataDir, instanceId, generation }: Vm): Promise<number> {
  const disks = await readDisksAtRest(generationDir(dataDir, instanceId, generation))
  return Math.max(0, ...disks.map((disk, index) => overlaysOf(disk, index).length))
}

/** The VM has ended, or its directory with it. */
function isGone(error: unknown): boolean {
  const { code } = error as { code?: string }
  return code === "ENOENT" || (error instanceof StillframeError && error.code === "hypervisor_gone")
}
