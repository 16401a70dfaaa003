interface KnownPayload {
  readonly snapshotId: string
  readonly payload: string
}

/** What the database knows of a pool. */
export interface KnownPool {
  readonly name: string
  readonly installation: string
  /** Undefined: no directory was found or made for it yet. */
  readonly id: string | undefined
  /** The pools that have an id, this one too. */
  readonly pools: readonly { readonly name: string; readonly id: string }[]
  /** Of ready snapshots in it, the newest first; not all where there are very many. */
  readonly payloads: readonly KnownPayload[]
  /** Whether files of deleted snapshots are still to be removed from it. */
  readonly deleting: boolean
  /** Of a pool without an id: what this host has captured into pools of other names that have one. */
  readonly strays: readonly (KnownPayload & { readonly pool: string })[]
}

export interface SettledPool {
  readonly id: string
  /** Snapshots whose files lie here, though their rows say that they are in another pool. */
  readonly taken: readonly string[]
}

/** The database's side of a pool's identity. */
export interface PoolRegister {
  look(): Promise<KnownPool>
  /** Keeps every other process from settling a pool meanwhile; what `decide` resolves with is written down. */
  settle(decide: (known: KnownPool) => Promise<SettledPool>): Promise<string>
}
