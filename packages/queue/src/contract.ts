import type { Problem } from "@stillframe/domain/problem"

/**
 * One look at one operation. `wake` counts the operation's queueings; an engine never sees the same pair
 * twice.
 */
export interface Job {
  readonly queue: string
  /** The operation's. */
  readonly id: string
  readonly wake: number
}

export interface ConsumeOptions {
  /** Handlers at a time. */
  readonly concurrency: number
  /**
   * Looks at one operation. `signal` is aborted when the consumer closes. The job ends with the promise
   * either way: the operation's row says if it is tried again, so a rejection is only reported to `onError`.
   */
  readonly handler: (operationId: string, signal: AbortSignal) => Promise<void>
  /** How long a job of a worker that died stays with it. */
  readonly lockMs?: number
}

export interface Consumer {
  /**
   * Takes no more jobs, aborts the handlers' signal and waits for them, 14 s at most; then they are left to
   * themselves.
   */
  close(): Promise<void>
}

/** The queue as a hint: it may lose everything at any moment, and then the rows are relayed again. */
export interface QueueEngine {
  readonly kind: "redis" | "postgres"
  /**
   * Adds jobs; one that the engine still has is ignored. Throws `unavailable` when it does not answer within
   * 5 s.
   */
  add(jobs: readonly Job[]): Promise<void>
  /**
   * The ids of the operations whose job waits or is being worked on, of up to 500 asked for. Throws
   * `unavailable` likewise.
   */
  unfinished(jobs: readonly Job[]): Promise<Set<string>>
  /**
   * Hands jobs of one queue to a handler until closed. Resolves when the engine is asked for them, or will be
   * once it is up.
   */
  consume(queue: string, options: ConsumeOptions): Promise<Consumer>
  /**
   * Builds the engine's own tables again if they are missing or incomplete. True: it had to, and all jobs are
   * gone.
   */
  repair(): Promise<boolean>
  /** Each reason why the queue's server may not work as it should, in words; also that it does not answer. */
  problems(): Promise<readonly Problem[]>
  /** Closes all consumers and connections, within a deadline even when the engine is unreachable. */
  close(): Promise<void>
}
