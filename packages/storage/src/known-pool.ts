/** What the database knows of a pool. */
export interface KnownPool {
  readonly name: string
  readonly installation: string
  /** Undefined: no directory was found or made for it yet. */
  readonly id: string | undefined
  /** The pools that have an id, this one too. */
  readonly pools: readonly { readonly name: string; readonly id: string }[]
  /** Of ready snapshots in it, the newest first; not all where there are very many. */
  readonly payloads: readonly { readonly snapshotId: string; readonly payload: string }[]
}

/** The database's side of a pool's identity. */
export interface PoolRegister {
  look(): Promise<KnownPool>
  /** Keeps every other process from settling a pool meanwhile. The id that `decide` resolves with becomes the pool's. */
  settle(decide: (known: KnownPool) => Promise<string>): Promise<string>
}
