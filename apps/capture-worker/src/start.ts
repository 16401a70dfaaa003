import type { OwnedDatabase } from "@stillframe/db/client"
import { knownHost } from "@stillframe/db/hosts/hosts"
import { poolRegister } from "@stillframe/db/hosts/pools"
import { heartbeat, registerHost, type HostRegistration } from "@stillframe/db/hosts/register"
import { instancesOfHost, type InstanceRow } from "@stillframe/db/instances/instances"
import { openMigrated, type OpenedDatabase } from "@stillframe/db/open"
import { hurryQueue } from "@stillframe/db/operations/operations"
import {
  runOperation,
  type OperationContext,
  type OperationHandler,
  type OperationRunner,
} from "@stillframe/db/operations/run-operation"
import { hasVm, type Hypervisor as HypervisorName } from "@stillframe/domain/instance"
import { openTrouble } from "@stillframe/domain/postgres/outage"
import { captureQueue } from "@stillframe/domain/queues"
import { readBootId } from "@stillframe/hypervisors/process/processes"
import type { QueueEngine } from "@stillframe/queue/contract"
import { useQueueEngine, type QueueEngineOptions } from "@stillframe/queue/engine"
import type { Logger } from "@stillframe/runtime/logger"
import { openProblems, type Problems } from "@stillframe/runtime/problems"
import { queueLog } from "@stillframe/runtime/queue-log"
import { watchPlace } from "@stillframe/runtime/watch-place"
import { claimPool } from "@stillframe/storage/places/claim-pool"
import { openDataDir } from "@stillframe/storage/places/data-dir"
import { claimHome, homePlace, readHostId } from "@stillframe/storage/places/home"
import { poolPlace, type Place } from "@stillframe/storage/places/place"
import type { CaptureWorkerConfig } from "./config.ts"
import { openDiskGrowths } from "./host/disk-growths.ts"
import { holdHome, holdHostId } from "./host/home-lock.ts"
import type { HostHypervisor } from "./host/host-hypervisor.ts"
import { probeHostQemu } from "./host/host-qemu.ts"
import { openHostUsers } from "./host/host-users.ts"
import { probeHostVmms } from "./host/host-vmms.ts"
import { startLogKeeper } from "./host/log-keepers.ts"
import { openStaging } from "./host/staging.ts"
import { attachedInstance } from "./operations/attached-instance.ts"
import { captureHandler } from "./operations/capture.ts"
import { watchDiskRoom } from "./operations/disk-room.ts"
import { openCaptors } from "./operations/executors/captors.ts"
import { openHostClock, type HostClock } from "./operations/host-clock.ts"
import { startImageSweep } from "./operations/image-sweep.ts"
import { standbyHandler, startHandler, stopHandler } from "./operations/instance-operations.ts"
import { beforeMerges, openMerges, type Merges } from "./operations/merges.ts"
import { watchOrphans } from "./operations/orphans.ts"
import { release } from "./operations/release.ts"
import { goOn, restoreHandler } from "./operations/restore.ts"
import { tidyInstance } from "./operations/tidy.ts"
import { deleteHandler, forkHandler, launchHandler } from "./operations/vm-operations.ts"
import { startHostSweep } from "./pause/host-sweep.ts"
import type { Growth } from "./pause/takeover.ts"
import { watches as openWatches } from "./watch/watches.ts"
import type { Worker } from "./worker.ts"

const heartbeatIntervalMs = 5_000

/** Services that the parts of one process share; each opens its own of those that are absent. */
interface Shared {
  readonly database?: OpenedDatabase
  readonly engine?: QueueEngine
}

/**
 * Starts the worker of one host. VMs that an earlier worker left paused are resumed first, before there is a
 * database; then it registers the host and takes work from `capture.<host>`. Disposing of it stops taking
 * work, cancels what is under way (each VM is resumed and its operation queued again), and leaves the VMs
 * running.
 */
export async function startCaptureWorker(
  config: CaptureWorkerConfig,
  log: Logger,
  shared: Shared = {},
): Promise<AsyncDisposable> {
  await using resources = new AsyncDisposableStack()
  await openDataDir(config)
  resources.use(await holdHome(config.dataDir))
  const knownId = await holdKnownId(resources, config.dataDir)
  const grown: Growth = new Map()
  resources.use(await startHostSweep(config.dataDir, log, grown))
  resources.use(startLogKeeper(config, log))

  const { db, committed } = await openMigrated(resources, { ...config, log }, shared.database)
  const known = await knownHost(db, config.host)
  const { installation: clusterId } = known
  const hostId = await claimHome(config.dataDir, known)
  if (hostId !== knownId) resources.use(await holdHostId(config.dataDir, hostId))
  const home = homePlace(config.dataDir, hostId)
  const pool = poolPlace(config.storageDir, await claimPool(config.storageDir, poolRegister(db, config)))

  const staging = await openStaging({ ...config, hostId })
  const hypervisors = await findHypervisors(config, { staging, log })
  const problems = openProblems(log)
  const clock = await openHostClock(db, problems)
  const watches = resources.use(
    openWatches({ db, clusterId, config, hypervisors, home, clock, committed, log }),
  )
  resources.use(
    await keepRegistered(db, await registration(config, hostId, hypervisors), { clock, log, problems }),
  )
  const captors = resources.use(openCaptors({ sparesMax: config.concurrency }))
  const merges = resources.use(openMerges(captors, { log, quietMs: config.mergeQuietMs }))
  const orderly = beforeMerges(captors, merges)
  const worker: Worker = {
    clusterId,
    config,
    home,
    pool,
    db,
    hypervisors,
    watches,
    captors: orderly,
    committed,
    log,
    problems,
    clock,
    grown,
    room: new Map(),
    growths: openDiskGrowths(config.dataDir),
  }
  const instances = await instancesOfHost(db, config.host)
  await Promise.all(instances.map((instance) => takeBack(worker, merges, instance)))
  resources.use(
    watchOrphans({ ...worker, leadBack: (instance) => release(worker, instance, { forget: false }) }),
  )
  watchPlaces(resources, worker)
  resources.use(watchDiskRoom(worker))
  resources.use(startImageSweep(worker))
  await consume(resources, worker, shared.engine)
  return resources.move()
}

async function findHypervisors(
  config: CaptureWorkerConfig,
  host: { staging: string | undefined; log: Logger },
): Promise<Map<HypervisorName, HostHypervisor>> {
  const users = await openHostUsers(config, host.log)
  const found = await probeHostVmms(config, { ...host, users })
  return found.set("qemu", await probeHostQemu(config, { ...host, users }))
}

/** Before the sweep, which must not judge the pauses of a worker by a copy of its records. */
async function holdKnownId(resources: AsyncDisposableStack, dataDir: string): Promise<string | undefined> {
  // `claimHome` reports an id that cannot be read. VMs that were left paused are resumed before that.
  const id = await readHostId(dataDir).catch(() => undefined)
  if (id !== undefined) resources.use(await holdHostId(dataDir, id))
  return id
}

/** Finishes the work that an earlier worker left on an instance. */
async function takeBack(worker: Worker, merges: Merges, instance: InstanceRow): Promise<void> {
  const { id: instanceId, generation, state } = instance
  if (attachedInstance(instance) !== undefined) {
    if (hasVm(state)) worker.watches.start(instance)
    // If this fails now, the next capture or the watch at the VM's end does it.
    await release(worker, instance, { forget: false }).catch((err: unknown) =>
      worker.log.warn({ err, instanceId }, "attached vm may still use overlays"),
    )
  } else if (state === "Running") {
    await goOn(worker, instance)
    merges.consider({ clusterId: worker.clusterId, dataDir: worker.config.dataDir, instanceId, generation })
  } else if (state === "Paused" || state === "Unknown") {
    // It may have been paused on purpose: its watch finds out whether it is to go on, or answers again.
    worker.watches.start(instance)
  }
  await tidyInstance(worker, instance)
}

function watchPlaces(resources: AsyncDisposableStack, worker: Worker): void {
  const { config, db, home, pool, problems, committed } = worker
  const onBack = async (): Promise<void> => {
    await hurryQueue(db, captureQueue(config.host))
    committed()
  }
  for (const place of [home, pool]) resources.use(watchPlace(place, { problems, onBack }))
}

async function consume(
  resources: AsyncDisposableStack,
  worker: Worker,
  sharedEngine: QueueEngine | undefined,
): Promise<void> {
  const { config, db, committed, log } = worker
  const options: QueueEngineOptions = {
    redisUrl: config.redisUrl,
    databaseUrl: config.databaseDirectUrl,
    ...queueLog(log, config.redisUrl),
  }
  const engine = await useQueueEngine(resources, options, sharedEngine)
  const queue = captureQueue(config.host)
  const handlers = {
    launch: launchHandler(worker),
    capture: captureHandler(worker),
    stop: stopHandler(worker),
    start: startHandler(worker),
    standby: standbyHandler(worker),
    restore: restoreHandler(worker),
    fork: forkHandler(worker),
    delete: deleteHandler(worker),
  }
  const runner = { db, committed, worker: config.host, queue, handlers: atHome(worker.home, handlers), log }
  const consumer = await engine.consume(queue, {
    concurrency: config.concurrency,
    handler: (operationId, signal) => runOperation(runner, operationId, signal),
  })
  resources.defer(() => consumer.close())
}

/** All of it works in `DATA_DIR`, and what fails because that is away has not failed. */
function atHome(
  home: Place,
  handlers: Readonly<Record<string, OperationHandler>>,
): OperationRunner["handlers"] {
  return Object.fromEntries(
    Object.entries(handlers).map(([kind, handler]) => [
      kind,
      { ...handler, run: (context: OperationContext) => home.during(() => handler.run(context)) },
    ]),
  )
}

async function registration(
  config: CaptureWorkerConfig,
  hostId: string,
  hypervisors: Worker["hypervisors"],
): Promise<HostRegistration> {
  return {
    name: config.host,
    hostId,
    bootId: await readBootId(),
    pool: config.pool,
    hypervisors: Object.fromEntries([...hypervisors].map(([name, { capabilities }]) => [name, capabilities])),
  }
}

/**
 * Registers the host and says that it lives: every 5 s, and when its problems change. Throws when another
 * machine holds the name.
 */
async function keepRegistered(
  db: OwnedDatabase,
  host: HostRegistration,
  { clock, log, problems }: { clock: HostClock; log: Logger; problems: Problems },
): Promise<Disposable> {
  const present = (): HostRegistration => ({ ...host, problems: problems.list() })
  const say = (): Promise<void> => heartbeat(db, present())
  const trouble = openTrouble(log, { lost: "heartbeat failed", back: "heartbeats succeed again" })
  const beat = (work: () => Promise<void>): void => void work().then(trouble.worked, trouble.failed)
  await registerHost(db, present(), (reason) => log.warn({ reason }, "waits to register this host"))
  const stopListening = problems.listen(() => beat(say))
  const timer = setInterval(() => beat(() => clock.measure().then(say)), heartbeatIntervalMs)
  return {
    [Symbol.dispose]() {
      stopListening()
      clearInterval(timer)
    },
  }
}
