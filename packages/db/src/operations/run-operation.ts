import { StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { countsAsTry, retryDelayMs, type OperationKind } from "@stillframe/domain/operation"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { inTransaction, type OwnedDatabase } from "../client.ts"
import type { Database } from "../schema.ts"
import { keepLease } from "./lease.ts"
import {
  claimOperation,
  finishOperation,
  releaseCancelled,
  requeueOperation,
  type ClaimedOperation,
} from "./operations.ts"

/**
 * `signal` ends the handler: the lease is lost, the work cancelled, or the process stops. In the last case
 * `stopping` is aborted too, and the result is still of use.
 */
export interface OperationContext {
  readonly operation: ClaimedOperation
  readonly signal: AbortSignal
  readonly stopping: AbortSignal
  readonly leaseRemainingMs: () => number
}

/** How one kind of work is done. Any of it may happen twice. */
export interface OperationHandler {
  /**
   * Does the work and ends the operation by `finishOperation` in the transaction that publishes the result.
   */
  run(context: OperationContext): Promise<void>
  /** In the transaction that fails the operation for good: what else changes, events last. */
  failed(tx: Database, operation: ClaimedOperation, error: StillframeError): Promise<void>
  /** In the transaction that queues the operation again: what else changes. */
  handedBack?(tx: Database, operation: ClaimedOperation): Promise<void>
}

export interface OperationRunner {
  readonly db: OwnedDatabase
  /** Called after each commit that may have left events or queued operations. */
  readonly committed: () => void
  readonly worker: string
  readonly queue: string
  readonly handlers: Partial<Record<OperationKind, OperationHandler>>
  readonly log: {
    info(fields: object, message: string): void
    debug(fields: object, message: string): void
    warn(fields: object, message: string): void
    error(fields: object, message: string): void
  }
}

/**
 * Claims an operation and sees it through: lease, handler, then what its failure means. A job whose operation
 * can't be claimed ends at once; the row decides who acts. Resolves also when the work failed: that is in the
 * row.
 */
export async function runOperation(
  runner: OperationRunner,
  id: string,
  shutdown: AbortSignal,
): Promise<void> {
  const { db, worker, queue, log } = runner
  const operation = await claimOperation(db, { id, worker, queue })
  if (operation === undefined) return
  const handler = runner.handlers[operation.kind]
  if (handler === undefined) throw new Error(`no handler for operations of kind ${operation.kind}`)

  const fields = { operationId: id, kind: operation.kind, attempt: operation.attempt }
  const trouble = openTrouble(log, { lost: `lease of operation ${id} not renewed` })
  using lease = keepLease(db, operation, trouble.failed)
  const signal = AbortSignal.any([lease.signal, shutdown])
  try {
    await handler.run({
      operation,
      signal,
      stopping: shutdown,
      leaseRemainingMs: () => lease.remainingMs(),
    })
    runner.committed()
  } catch (thrown) {
    const error = toStillframeError(thrown)
    const delayMs = shutdown.aborted ? 0 : retryDelayMs(operation.kind, operation.attempt, error.code)
    const current = await endUnlessLost(runner, {
      operation,
      handler,
      error,
      delayMs,
      counted: !shutdown.aborted && countsAsTry(error.code),
    })
    const ours = delayMs === undefined ? "failed" : "queued again"
    const others = !current && (await releaseCancelled(db, operation)) ? "cancelled" : "taken over"
    const outcome: Outcome = current ? ours : others
    tellEnd(runner, { ...fields, err: error, delayMs, outcome }, { stopping: shutdown.aborted })
    runner.committed()
  }
}

type Outcome = "cancelled" | "taken over" | "failed" | "queued again"

function tellEnd(
  { log }: OperationRunner,
  { err, ...fields }: { err: StillframeError; outcome: Outcome; [field: string]: unknown },
  { stopping }: { stopping: boolean },
): void {
  const { outcome } = fields
  // A process that stops hands back what is under way: that is no trouble.
  if (stopping && outcome === "queued again") return log.info(fields, "operation handed back")
  // Its row has asked for this end. Any other error, such as that of a VM that was not resumed, is told in
  // full.
  if ((outcome === "cancelled" || outcome === "taken over") && isCalledOff(err))
    return log.info({ ...fields, reason: err.message }, `operation ${outcome}`)
  // An absent directory is told once, by who watches it, and not by everything that waits for it.
  const waits = outcome === "queued again" && !countsAsTry(err.code)
  const level = outcome === "failed" ? "error" : waits ? "debug" : "warn"
  log[level]({ ...fields, err }, "operation not done")
}

/** True for the error of work that was told to end. */
function isCalledOff({ code, cause }: StillframeError): boolean {
  return (
    code === "cancelled" || code === "lease_lost" || (cause instanceof Error && cause.name === "AbortError")
  )
}

interface FailedTry {
  readonly operation: ClaimedOperation
  readonly handler: OperationHandler
  readonly error: StillframeError
  /** Undefined: it was the last. */
  readonly delayMs: number | undefined
  readonly counted: boolean
}

/** False, with nothing changed, when the operation is no longer ours to end. */
async function endUnlessLost({ db }: OperationRunner, failure: FailedTry): Promise<boolean> {
  const { operation, handler, error, delayMs, counted } = failure
  const lost = new Error("the operation is no longer ours")
  try {
    await inTransaction(db, async (tx) => {
      // The subject's row before the operation's, as everywhere, or a DELETE at the same moment could
      // deadlock with this.
      if (delayMs === undefined) {
        await handler.failed(tx, operation, error)
        const end = { state: "failed", code: error.code, message: error.message } as const
        if (!(await finishOperation(tx, { ...operation, end }))) throw lost
      } else {
        await handler.handedBack?.(tx, operation)
        if (!(await requeueOperation(tx, { ...operation, delayMs, counted }))) throw lost
      }
    })
    return true
  } catch (thrown) {
    if (thrown === lost) return false
    throw thrown
  }
}

/**
 * For handlers: ends the operation as done in their own transaction; throws `lease_lost`, which rolls it
 * back, when it is no longer theirs. `warning` is for whoever asked for the work.
 */
export async function finishDone(tx: Database, operation: ClaimedOperation, warning?: string): Promise<void> {
  if (!(await finishOperation(tx, { ...operation, end: { state: "done", warning } })))
    throw new StillframeError("lease_lost", "the operation was cancelled or taken over meanwhile")
}
