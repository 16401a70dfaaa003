interface KnownPayload {
  readonly snapshotId: string
  readonly payload: string
}

/** The database's facts about a pool. */
export interface KnownPool {
  readonly name: string
  readonly installation: string
  /** Undefined: no directory was found or made for it yet. */
  readonly id: string | undefined
  /** The pools that have an id, this one too. */
  readonly pools: readonly { readonly name: string; readonly id: string }[]
  /** Payloads of its ready snapshots, the newest 1,000 first. */
  readonly payloads: readonly KnownPayload[]
  /** True while files of deleted snapshots are still to be removed from it. */
  readonly deleting: boolean
  /** For a pool without an id: payloads that this host captured into pools of other names that have one. */
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
  /**
   * Records the result of `decide`. It is called again with new facts where another process has settled a
   * pool meanwhile, so it must be safe to repeat.
   */
  settle(decide: (known: KnownPool) => Promise<SettledPool>): Promise<string>
}
