import { randomInt } from "node:crypto"
import { lstatSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import type { HypervisorTools } from "@stillframe/hypervisors/hypervisor"
import { usersWithProcesses } from "@stillframe/hypervisors/process/processes"
import { instanceDir } from "@stillframe/storage/layout"
import type { UidRange } from "../host/vm-uid-setting.ts"
import { holdSocket } from "../pause/hold-socket.ts"

interface Wish {
  /** Its first user is that of the host's trials. */
  readonly range: UidRange
  readonly dataDir: string
  /** The instance whose VM it is for, which keeps the user that it had. */
  readonly instanceId: string
}

/**
 * A user that no other VM of this machine has until this is disposed of, and afterwards as long as something
 * runs or lies there as it.
 */
export interface ClaimedUid extends AsyncDisposable {
  readonly uid: number
}

/**
 * Takes a user for a VM: the one that its instance has, else one at random, so that a user that was freed
 * comes back late, and two installations seldom ask for the same one. The owner of a VM's directory is the
 * record of its user; until the directory is given to it, a socket holds it that the kernel frees with this
 * process. Throws `conflict` when the range is used up.
 */
export async function claimUid(wish: Wish): Promise<ClaimedUid> {
  let isFree = (_uid: number): boolean => true
  for (const uid of candidates(wish)) {
    if (!isFree(uid)) continue
    const held = await hold(uid)
    if (held === undefined) continue
    // Only now: another process may have taken it, given it a directory and let go of it since an earlier
    // look.
    isFree = lookAround(wish)
    if (isFree(uid)) return { uid, [Symbol.asyncDispose]: () => held[Symbol.asyncDispose]() }
    await held[Symbol.asyncDispose]()
  }
  throw usedUp(wish.range)
}

/**
 * An order's hypervisor as the user that the order's VM is to run as; the same one where VMs have no users of
 * their own.
 */
export async function claimVmUser(order: {
  readonly dataDir: string
  readonly instanceId: string
  readonly hypervisor: HypervisorTools
}): Promise<AsyncDisposable & { readonly hypervisor: HypervisorTools }> {
  const { dataDir, instanceId, hypervisor } = order
  const { vmUsers: users } = hypervisor
  if (users === undefined) return { hypervisor, [Symbol.asyncDispose]: async () => {} }
  const { first, last, ...rights } = users
  const claimed = await claimUid({ range: { first, last }, dataDir, instanceId })
  return {
    hypervisor: { ...hypervisor, runAs: { uid: claimed.uid, ...rights } },
    [Symbol.asyncDispose]: () => claimed[Symbol.asyncDispose](),
  }
}

function* candidates({ range, dataDir, instanceId }: Wish): Generator<number> {
  const { last } = range
  const first = range.first + 1
  for (const uid of ownersIn(instanceDir(dataDir, instanceId))) if (uid >= first && uid <= last) yield uid
  const count = last - first + 1
  const start = randomInt(count)
  for (let step = 0; step < count; step++) yield first + ((start + step) % count)
}

async function hold(uid: number): Promise<AsyncDisposable | undefined> {
  try {
    return await holdSocket(`\0stillframe-vm-user/${uid}`, { waitMs: 0, taken: `user ${uid} is being taken` })
  } catch (error) {
    if (error instanceof StillframeError && error.code === "conflict") return undefined
    throw error
  }
}

/** Looks at what runs and lies on this host now; returns a function that is true for a user that is free. */
function lookAround({ dataDir, instanceId }: Wish): (uid: number) => boolean {
  const taken = usersWithProcesses()
  const instances = join(dataDir, "instances")
  for (const id of namesIn(instances))
    if (id !== instanceId) for (const uid of ownersIn(join(instances, id))) taken.add(uid)
  return (uid) => !taken.has(uid)
}

/** The owners of an instance's generations. */
function ownersIn(instance: string): number[] {
  return namesIn(instance)
    .filter((name) => /^\d+$/.test(name))
    .flatMap((name) => lstatSync(join(instance, name), { throwIfNoEntry: false })?.uid ?? [])
}

/** At once, as `usersWithProcesses`. */
function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error
    return []
  }
}

const usedUp = ({ first, last }: UidRange): StillframeError =>
  new StillframeError(
    "conflict",
    `all ${last - first} users for VMs of VM_UID_RANGE (${first}-${last}) are taken, also by VMs that do not run; delete an instance, or set a wider range and start the worker again`,
  )
