import type { OwnedDatabase } from "@stillframe/db/client"
import type { Waker } from "@stillframe/db/connection/wake"
import { removeOldEvents } from "@stillframe/db/events/remove"
import { measureClock } from "@stillframe/db/hosts/measure-clock"
import { openMigrated, type OpenedDatabase } from "@stillframe/db/open"
import { recordQueueCheck } from "@stillframe/db/operations/queue-check"
import { requeueExpired } from "@stillframe/db/operations/relay"
import { removeOldKeys } from "@stillframe/db/snapshots/idempotency"
import { failPending } from "@stillframe/db/webhooks/disable"
import { pullBackTimes } from "@stillframe/db/webhooks/pull-back-times"
import { skewProblem } from "@stillframe/domain/postgres/clock-skew"
import { watchForStepsBack } from "@stillframe/domain/postgres/clock-step"
import type { QueueEngine } from "@stillframe/queue/contract"
import { useQueueEngine, type QueueEngineOptions } from "@stillframe/queue/engine"
import type { Logger } from "@stillframe/runtime/logger"
import { openProblems } from "@stillframe/runtime/problems"
import { queueLog } from "@stillframe/runtime/queue-log"
import { guardedAgents } from "./address-guard.ts"
import type { DispatcherConfig } from "./config.ts"
import { openDeliverer } from "./deliver.ts"
import { startLoop, type Loop } from "./loop.ts"
import { publishOperations } from "./publish.ts"
import { sweepLostJobs } from "./sweep.ts"

/** How long a wake-up that was lost goes unnoticed. */
const pollMs = 1_000
const expiredEveryMs = 5_000
const lostEveryMs = 15_000
/** A VM may be held up for so long after the database's clock was put right. */
const timesEveryMs = 15_000
/** Looks for the leftovers of a dead dispatcher. */
const leftoversEveryMs = 5_000
const queueCheckEveryMs = 60_000
/** While something is wrong with the queue, so that `/ready` says soon that it is over. */
const queueCheckAgainMs = 5_000
const removalEveryMs = 60_000
const clockEveryMs = 60_000
/** When a round has removed something there may be more; it is in no hurry. */
const nextRoundMs = 1_000

/** Services that the parts of one process share; each opens its own of those that are absent. */
interface Shared {
  readonly database?: OpenedDatabase
  readonly engine?: QueueEngine
}

/**
 * Publishes operations, numbers events, delivers webhooks and sweeps rows, until disposed of. Any number may
 * run.
 */
export async function startDispatcher(
  config: DispatcherConfig,
  log: Logger,
  shared: Shared = {},
): Promise<AsyncDisposable> {
  await using opened = new AsyncDisposableStack()
  const { db, waker } = await openMigrated(opened, { ...config, log }, shared.database)
  const options: QueueEngineOptions = {
    redisUrl: config.redisUrl,
    databaseUrl: config.databaseDirectUrl,
    prefix: config.queuePrefix,
    ...queueLog(log, config.redisUrl),
  }
  const engine = await useQueueEngine(opened, options, shared.engine)

  startClockWatch(opened, { db, log })
  startRelay(opened, { db, waker, engine, log })
  startRemoval(opened, { db, log, config })
  startEvents(opened, { db, waker, config, log })
  return opened.move()
}

interface Duties {
  readonly db: OwnedDatabase
  readonly waker: Waker
  readonly log: Logger
}

/** Receivers refuse a webhook whose timestamp is minutes off, so the log tells of a clock that is wrong. */
function startClockWatch(opened: AsyncDisposableStack, { db, log }: Pick<Duties, "db" | "log">): void {
  const problems = openProblems(log)
  runLoop(opened, {
    name: "compare clocks",
    everyMs: clockEveryMs,
    async turn() {
      problems.set("clock", skewProblem("the dispatcher's machine", await measureClock(db)))
    },
    log,
  })
}

/** From rows to jobs, and back when jobs or workers are gone. */
function startRelay(
  opened: AsyncDisposableStack,
  { db, waker, engine, log }: Duties & { engine: QueueEngine },
): void {
  const publisher = runLoop(opened, {
    name: "publish",
    everyMs: pollMs,
    turn: (signal) => publishOperations(db, engine, signal),
    log,
  })
  opened.defer(waker.listen("operations", () => publisher.wake()))

  runLoop(opened, {
    name: "sweep lost jobs",
    everyMs: lostEveryMs,
    async turn() {
      const lost = await sweepLostJobs(db, engine)
      if (lost === 0) return
      log.warn({ lost }, "operations had lost their jobs")
      publisher.wake()
    },
    log,
  })
  const problems = openProblems(log)
  runLoop(opened, {
    name: "look at the queue",
    everyMs: queueCheckEveryMs,
    async turn() {
      const found = await engine.problems()
      const [code, message] = ["unavailable" as const, found.map((problem) => problem.message).join(" ")]
      problems.set("queue", found.length === 0 ? undefined : { code, message })
      await recordQueueCheck(db, problems.list())
      return found.length === 0 ? undefined : queueCheckAgainMs
    },
    log,
  })
  const mayLieAhead = watchForStepsBack()
  runLoop(opened, {
    name: "pull back times",
    everyMs: timesEveryMs,
    async turn() {
      if (!mayLieAhead(await measureClock(db))) return
      const rows = await pullBackTimes(db)
      if (rows === 0) return
      log.warn({ rows }, "the database's clock was ahead: times that lay too far ahead were pulled back")
      waker.wake("deliveries")
      publisher.wake()
    },
    log,
  })
  runLoop(opened, {
    name: "sweep expired leases",
    everyMs: expiredEveryMs,
    async turn() {
      const expired = await requeueExpired(db)
      if (expired === 0) return
      log.warn({ expired }, "operations had lost their workers")
      publisher.wake()
    },
    log,
  })
}

/** Removes rows that are past their retention. */
function startRemoval(
  opened: AsyncDisposableStack,
  { db, log, config }: Pick<Duties, "db" | "log"> & { config: DispatcherConfig },
): void {
  runLoop(opened, {
    name: "remove old idempotency keys",
    everyMs: removalEveryMs,
    async turn() {
      const removed = await removeOldKeys(db)
      if (removed > 0) log.info({ removed }, "old idempotency keys removed")
    },
    log,
  })
  runLoop(opened, {
    name: "remove old events",
    everyMs: removalEveryMs,
    async turn() {
      const removed = await removeOldEvents(db, config.eventRetentionMs)
      if (removed === 0) return
      log.info({ removed }, "old events removed")
      return nextRoundMs
    },
    log,
  })
}

/** From rows to numbered events to webhooks. */
function startEvents(
  opened: AsyncDisposableStack,
  { db, waker, config, log }: Duties & { config: DispatcherConfig },
): void {
  const agents = guardedAgents(config.webhooks, config.lookup)
  opened.defer(() => agents.destroy())
  const deliverer = openDeliverer({
    db,
    agents,
    secretsKey: config.secretsKey,
    attemptMs: config.attemptMs,
    log,
    onWork: () => delivering.wake(),
    // Readers in other processes wait for the number, not for the row.
    onNumbered: () => waker.wake("numbered"),
    onDisabled() {
      delivering.wake()
      failing.wake()
    },
  })
  opened.defer(() => deliverer.stop())
  const delivering = runLoop(opened, {
    name: "deliver",
    everyMs: pollMs,
    turn: () => deliverer.turn(),
    log,
  })
  // Apart from it: what waits for a webhook that was disabled may be a million deliveries.
  const failing = runLoop(opened, {
    name: "fail what waits for disabled webhooks",
    everyMs: leftoversEveryMs,
    async turn(signal) {
      while (!signal.aborted && (await failPending(db)) > 0);
    },
    log,
  })
  opened.defer(waker.listen("events", () => delivering.wake()))
  opened.defer(waker.listen("deliveries", () => delivering.wake()))
}

function runLoop(opened: AsyncDisposableStack, options: Parameters<typeof startLoop>[0]): Loop {
  const loop = startLoop(options)
  opened.defer(() => loop.stop())
  return loop
}
