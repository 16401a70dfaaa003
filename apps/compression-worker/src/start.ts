import { codecsInUse } from "@stillframe/codec/frames/codecs"
import { warmThreads } from "@stillframe/codec/threads/threads"
import { compressionHeartbeat } from "@stillframe/db/hosts/compression-workers"
import { measureClock } from "@stillframe/db/hosts/measure-clock"
import { poolRegister } from "@stillframe/db/hosts/pools"
import { openMigrated, type OpenedDatabase } from "@stillframe/db/open"
import { hurryQueue } from "@stillframe/db/operations/operations"
import { runOperation } from "@stillframe/db/operations/run-operation"
import type { Algorithm } from "@stillframe/domain/compression"
import { skewProblem } from "@stillframe/domain/postgres/clock-skew"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { compressQueue } from "@stillframe/domain/queues"
import type { QueueEngine } from "@stillframe/queue/contract"
import { useQueueEngine, type QueueEngineOptions } from "@stillframe/queue/engine"
import type { Logger } from "@stillframe/runtime/logger"
import { openProblems } from "@stillframe/runtime/problems"
import { queueLog } from "@stillframe/runtime/queue-log"
import { watchPlace } from "@stillframe/runtime/watch-place"
import { claimPool } from "@stillframe/storage/places/claim-pool"
import { poolPlace } from "@stillframe/storage/places/place"
import { compressHandler } from "./compress.ts"
import type { CompressionWorkerConfig } from "./config.ts"
import { deleteHandler } from "./delete.ts"
import { startPoolSweep } from "./pool-sweep.ts"
import { openStallGuard } from "./stall-guard.ts"
import { verifyHandler } from "./verify.ts"
import type { Worker } from "./worker.ts"

/** Files of one snapshot at a time: each takes all the threads this worker may use. */
const concurrency = 1
const heartbeatMs = 5_000

/** Services that the parts of one process share; each opens its own of those that are absent. */
interface Shared {
  readonly database?: OpenedDatabase
  readonly engine?: QueueEngine
}

/**
 * Starts a worker of one storage pool; any number may share it. Disposing of it hands back what is under way,
 * which the next worker starts again.
 */
export async function startCompressionWorker(
  config: CompressionWorkerConfig,
  log: Logger,
  shared: Shared = {},
): Promise<AsyncDisposable> {
  await using resources = new AsyncDisposableStack()
  const { db, committed } = await openMigrated(resources, { ...config, log }, shared.database)
  const pool = poolPlace(config.storageDir, await claimPool(config.storageDir, poolRegister(db, config)))
  // The hash of what is read back has a thread beside the ones that decode.
  resources.use(warmThreads(config.threads + 1))
  const codecs = codecsInUse()
  log.info({ codecs, threads: config.threads }, "ready to compress")
  const problems = openProblems(log)
  const guard = openStallGuard({
    problems,
    stallMs: config.stallMs,
    onEnd: () =>
      void takeUp({ db, config, committed }).catch((err: unknown) =>
        log.warn({ err }, "waiting work not taken up at once; it is due within 15 s"),
      ),
  })
  const worker: Worker = { config, pool, db, committed, log, problems, guard }
  resources.use(await keepRegistered(worker, codecs))
  resources.use(watchPlace(pool, { problems: worker.problems, onBack: () => takeUp(worker) }))
  resources.use(startPoolSweep(worker))

  const options: QueueEngineOptions = {
    redisUrl: config.redisUrl,
    databaseUrl: config.databaseDirectUrl,
    ...queueLog(log, config.redisUrl),
  }
  const engine = await useQueueEngine(resources, options, shared.engine)
  const queue = compressQueue(config.pool)
  const handlers = {
    compress: compressHandler(worker),
    delete: deleteHandler(worker),
    verify: verifyHandler(worker),
  }
  const runner = { db, committed, worker: config.host, queue, handlers, log }
  const consumer = await engine.consume(queue, {
    concurrency,
    handler: (operationId, signal) => runOperation(runner, operationId, signal),
  })
  resources.defer(() => consumer.close())
  return resources.move()
}

/** Has the work that waited for the pool done. */
async function takeUp({ db, config, committed }: Pick<Worker, "db" | "config" | "committed">): Promise<void> {
  await hurryQueue(db, compressQueue(config.pool))
  committed()
}

/**
 * Says every 5 s that the worker lives, what it compresses with, and at once when its problems have changed.
 */
async function keepRegistered(
  { config: { host: name, pool }, db, log, problems }: Worker,
  codecs: Readonly<Record<Algorithm, string>>,
): Promise<Disposable> {
  const heartbeat = (): Promise<void> =>
    compressionHeartbeat(db, { name, pool, codecs, problems: problems.list() })
  const measured = async (): Promise<void> =>
    problems.set("clock", skewProblem(`the compression-worker of ${name}`, await measureClock(db)))
  const trouble = openTrouble(log, { lost: "heartbeat failed", back: "heartbeats succeed again" })
  const beat = (work: () => Promise<void>): void => void work().then(trouble.worked, trouble.failed)
  await measured()
  await heartbeat()
  const stopListening = problems.listen(() => beat(heartbeat))
  const timer = setInterval(() => beat(() => measured().then(heartbeat)), heartbeatMs)
  return {
    [Symbol.dispose]() {
      stopListening()
      clearInterval(timer)
    },
  }
}
