/**
 * A host without a heartbeat of late. `since`: its last heartbeat, RFC 3339; null for a host that the
 * database does not know.
 */
export interface LostHost {
  readonly name: string
  readonly since: string | null
}

/**
 * The beginning of a sentence about it, such as
 * `host "web-1" has not been heard of since 2026-11-30T10:00:00.000Z`.
 */
export function notHeardOf({ name, since }: LostHost): string {
  return since === null
    ? `host "${name}" is not known`
    : `host "${name}" has not been heard of since ${since}`
}

/**
 * A storage pool that no host serves at present. `since`: the last heartbeat of the last one, RFC 3339; null
 * if the database knows none.
 */
export interface LostPool {
  readonly name: string
  readonly since: string | null
}

export function noHostOf({ name, since }: LostPool): string {
  return since === null
    ? `no host has the storage pool "${name}"`
    : `no host of the storage pool "${name}" has been heard of since ${since}`
}
