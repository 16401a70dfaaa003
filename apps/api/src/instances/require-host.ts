import { lastHeardOf, liveHosts, type LiveHost } from "@stillframe/db/hosts/hosts"
import type { ResolvedInstance } from "@stillframe/db/instances/shown"
import type { Database } from "@stillframe/db/schema"
import type { ShownSnapshot } from "@stillframe/db/snapshots/snapshots"
import { StillframeError } from "@stillframe/domain/errors"
import type { Hypervisor } from "@stillframe/domain/instance"
import { noHostOf, notHeardOf, type LostHost } from "@stillframe/domain/lost-host"

type InstanceOfLiveHost = ResolvedInstance & { readonly lost: null; readonly pool: string }

/**
 * Throws `unavailable` while the instance's host is not heard of: it alone knows the state, and can change
 * it.
 */
export function requireHost(instance: ResolvedInstance): asserts instance is InstanceOfLiveHost {
  const { host, lost, pool } = instance
  if (lost !== null || pool === null) throw hostLost({ name: host, since: lost?.since ?? null })
}

/** Throws `unavailable` for a host that is known and not heard of. */
export async function requireHostUp(db: Database, name: string): Promise<void> {
  const heard = await lastHeardOf(db, "hosts", { by: "name", is: name })
  if (heard?.up === false) throw hostLost({ name, since: heard.since })
}

/** Throws `unavailable` for a snapshot that is still to be captured by a host that is not heard of. */
export async function requireCaptor(db: Database, { id, host, host_up }: ShownSnapshot): Promise<void> {
  if (host_up) return
  const heard = await lastHeardOf(db, "hosts", { by: "name", is: host })
  const reason = notHeardOf({ name: host, since: heard?.since ?? null })
  throw new StillframeError(
    "unavailable",
    `snapshot ${id} is not captured yet, and ${reason}; start its capture-worker and try again`,
  )
}

/**
 * The host that builds an instance from a snapshot: the one where it was taken, else another one that is up,
 * has the same pool and offers the hypervisor. Throws `storage_unavailable` or `unavailable` while there is
 * none.
 */
export async function hostFor(
  db: Database,
  { id, host, pool, hypervisor }: { id: string; host: string; pool: string; hypervisor: Hypervisor },
): Promise<LiveHost> {
  const sharing = (await liveHosts(db)).filter((live) => live.pool === pool)
  const found =
    sharing.find(({ name }) => name === host) ??
    sharing.find(({ hypervisors }) => hypervisors[hypervisor] !== undefined)
  if (found !== undefined) return found
  const remedy = "start the capture-worker of such a host and try again"
  if (sharing.length > 0)
    throw new StillframeError(
      "unavailable",
      `host "${host}" is not up, and no other host of the storage pool "${pool}" offers ${hypervisor}; ${remedy}`,
    )
  const heard = await lastHeardOf(db, "hosts", { by: "pool", is: pool })
  const reason = noHostOf({ name: pool, since: heard?.since ?? null })
  throw new StillframeError(
    "storage_unavailable",
    `snapshot ${id} lies in the pool "${pool}": ${reason}; ${remedy}`,
  )
}

/** Throws `unavailable` while no compression-worker of the pool is heard of. */
export async function requireCompressionWorker(db: Database, pool: string): Promise<void> {
  const heard = await lastHeardOf(db, "compression_workers", { by: "pool", is: pool })
  if (heard?.up === true) return
  const reason =
    heard === undefined
      ? `the storage pool "${pool}" has no compression-worker`
      : `no compression-worker of the storage pool "${pool}" has been heard of since ${heard.since}`
  throw new StillframeError("unavailable", `${reason}; start one and try again`)
}

function hostLost(host: LostHost): StillframeError {
  return new StillframeError("unavailable", `${notHeardOf(host)}; start its capture-worker and try again`)
}
