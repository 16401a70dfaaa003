import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { diskGrowth } from "@stillframe/hypervisors/disks/disk-growth"
import { namesIn } from "@stillframe/storage/directory"
import { generationDir } from "@stillframe/storage/layout"

/** VMs that are looked at side by side: each holds a file descriptor or two. */
const besides = 16
/**
 * A hundred VMs cost about 15 ms of processor time. Meanwhile a guest only takes room that was counted as its
 * own.
 */
const lookMs = 10_000

/** The bytes by which the disks of a host's VMs may still grow, running or not. */
export interface DiskGrowths {
  /** The growth of one VM's disks, as its files are now. */
  of(instanceId: string): Promise<number>
  /**
   * Has `bytes` count for a VM that is made, in the place of its files, until the result is disposed of.
   * `judge` is called first, with the sum of all VMs then; when it throws, nothing counts.
   */
  promise(instanceId: string, bytes: number, judge: (together: number) => void): Promise<Disposable>
  /** The growth of all VMs' disks, with those of VMs that are being made. */
  together(): Promise<number>
}

/** Looks at the files in `dataDir`, at those of each VM every 10 s at most. */
export function openDiskGrowths(dataDir: string): DiskGrowths {
  const promised = new Map<string, number>()
  const known = new Map<string, { readonly bytes: number; readonly at: number }>()

  async function lookAtAll(): Promise<void> {
    const ids = await namesIn(join(dataDir, "instances"))
    for (let first = 0; first < ids.length; first += besides)
      await Promise.all(ids.slice(first, first + besides).map(look))
    const there = new Set(ids)
    for (const id of known.keys()) if (!there.has(id)) known.delete(id)
  }

  async function look(instanceId: string): Promise<void> {
    const at = performance.now()
    const { at: lookedAt = -Infinity } = known.get(instanceId) ?? {}
    if (at - lookedAt > lookMs) known.set(instanceId, { bytes: await growthOf(dataDir, instanceId), at })
  }

  function sumWith(others: Iterable<readonly [string, number]>): number {
    const all = new Map([...known].map(([id, { bytes }]) => [id, bytes]))
    for (const [id, bytes] of others) all.set(id, bytes)
    return [...all.values()].reduce((sum, bytes) => sum + bytes, 0)
  }

  return {
    of: (instanceId) => growthOf(dataDir, instanceId),
    async together() {
      await lookAtAll()
      return sumWith(promised)
    },
    async promise(instanceId, bytes, judge) {
      // A VM that is done during the look may have come too late for it.
      const before = new Map(promised)
      await lookAtAll()
      // Nothing is awaited between the sum and the promise, so two VMs are not judged by the same room.
      judge(sumWith([...before, ...promised, [instanceId, bytes]]))
      promised.set(instanceId, bytes)
      return {
        [Symbol.dispose]() {
          promised.delete(instanceId)
          known.delete(instanceId)
        },
      }
    },
  }
}

/** By its newest generation: another one is about to go. */
async function growthOf(dataDir: string, instanceId: string): Promise<number> {
  const names = await namesIn(join(dataDir, "instances", instanceId))
  const generation = Math.max(-1, ...names.filter((name) => /^\d+$/.test(name)).map(Number))
  if (generation === -1) return 0
  return diskGrowth(generationDir(dataDir, instanceId, generation)).catch((error: unknown) => {
    // A VM that is made or removed just now, or whose record is damaged, must keep no other one from its
    // start.
    if (error instanceof StillframeError || error instanceof SyntaxError || isAbsence(error)) return 0
    throw error
  })
}

function isAbsence(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT"
}
