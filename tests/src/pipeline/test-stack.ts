import { spawn, type ChildProcess } from "node:child_process"
import { once } from "node:events"
import { watch } from "node:fs"
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { ApiConfig } from "@stillframe/api/config"
import { startApi } from "@stillframe/api/start"
import type { CaptureWorkerConfig } from "@stillframe/capture-worker/config"
import { startCaptureWorker } from "@stillframe/capture-worker/start"
import type { CompressionWorkerConfig } from "@stillframe/compression-worker/config"
import { startCompressionWorker } from "@stillframe/compression-worker/start"
import type { OwnedDatabase } from "@stillframe/db/client"
import { clusterId } from "@stillframe/db/hosts/hosts"
import { openMigrated } from "@stillframe/db/open"
import { startDispatcher } from "@stillframe/dispatcher/start"
import type { InstanceResource } from "@stillframe/domain/instance"
import type { SnapshotResource } from "@stillframe/domain/snapshot"
import { logBytesMax } from "@stillframe/hypervisors/process/bounded-log"
import { useQueueEngine } from "@stillframe/queue/engine"
import { createLogger } from "@stillframe/runtime/logger"
import { queueLog } from "@stillframe/runtime/queue-log"
import { client, type Client } from "@stillframe/stillframe/demo/client"
import { mintToken } from "@stillframe/stillframe/token"
import { testDatabase } from "@stillframe/testing/database"
import { patienceMs } from "@stillframe/testing/patience"
import { inject } from "vitest"
import { jwtSecret, keepAliveMs, request, secretsKey, type Ask, type Reply } from "../api/test-api.ts"
import { qemu } from "../hypervisors/test-vm.ts"
import { endVms } from "./end-vms.ts"

const heartbeatElf = join(import.meta.dirname, "../../../packages/hypervisors/guests/heartbeat.elf")
const apps = join(import.meta.dirname, "../../../apps")

/** As VMs are where nothing is set. */
export const vmUids = { first: 2_100_000_000, last: 2_100_065_535 }

/** The whole system on one machine, with a database and folders of the test's own. */
export interface TestStack extends AsyncDisposable {
  readonly api: Client
  /** Where the API listens. */
  readonly url: string
  /** May do everything. */
  readonly token: string
  readonly db: OwnedDatabase
  readonly dataDir: string
  readonly storageDir: string
  readonly clusterId: string
  /** Where callers' files may lie. */
  readonly imagesDir: string
  /** Plain HTTP, where status, headers and bytes are what is judged. */
  ask(method: string, path: string, ask?: Ask): Promise<Reply>
  /** A capture-worker in this process. */
  startCaptureWorker(change?: Partial<CaptureWorkerConfig>): Promise<AsyncDisposable>
  /** One of the apps as a process, to be killed. `by`: a program that starts it, such as `setpriv`. */
  spawn(
    app: "api" | "capture-worker" | "compression-worker" | "dispatcher",
    env?: Record<string, string>,
    by?: readonly string[],
  ): Promise<AppProcess>
  startCompressionWorker(change?: Partial<CompressionWorkerConfig>): Promise<AsyncDisposable>
  /** A running heartbeat guest that has ticked. */
  launch(name: string, launch?: object): Promise<InstanceResource>
  /** Requests a snapshot; `settled` waits until nothing more will happen to it. */
  snapshot(instance: InstanceResource, body?: object): Promise<SnapshotResource>
  settled(id: string): Promise<SnapshotResource>
  /** Looks after each change anywhere until there is something. */
  until<T>(look: () => Promise<T | undefined>): Promise<T>
  /** Of a captured snapshot: the directory that its row names. */
  payloadDir(id: string): Promise<string>
  /** Of the VM; each restore builds the next. */
  generationDir(instance: Pick<InstanceResource, "id">, generation?: number): string
}

export interface AppProcess {
  readonly child: ChildProcess
  /** Exit status, or null when a signal ended it. */
  readonly ended: Promise<number | null>
}

export async function testStack({
  engine = "postgres",
  api: changedApi = {},
  folder = tmpdir(),
  clockOfAll,
}: {
  engine?: "postgres" | "redis"
  api?: Partial<ApiConfig>
  /** Where everything of it lies. */
  folder?: string
  /** By how much the database's clock is ahead of this machine's, such as `2 hours`. */
  clockOfAll?: string
} = {}): Promise<TestStack> {
  await using opened = new AsyncDisposableStack()
  const root = await mkdtemp(join(folder, "stillframe-stack-"))
  opened.defer(() => rm(root, { recursive: true, force: true }))
  const dataDir = join(root, "data")
  const imagesDir = join(dataDir, "images")
  await mkdir(imagesDir, { recursive: true })
  await copyFile(heartbeatElf, join(imagesDir, "heartbeat.elf"))

  const { url: databaseUrl } = opened.use(await testDatabase(clockOfAll === undefined ? {} : { clockOfAll }))
  const log = createLogger({ service: "test", level: process.env["TEST_LOG_LEVEL"] ?? "silent" })
  const redisUrl = engine === "redis" ? inject("redisUrl") : undefined
  const common = { databaseUrl, databaseDirectUrl: databaseUrl, redisUrl }
  // As under `npm start`, the parts of one process share connections. Few: each takes Postgres a while.
  const database = await openMigrated(opened, { ...common, databaseConnections: 4, log })
  const { db, waker } = database
  const queue = { redisUrl, databaseUrl, ...queueLog(log, redisUrl) }
  const shared = { database, engine: await useQueueEngine(opened, queue) }
  const cluster = await clusterId(db)
  opened.defer(() => endVms(cluster))
  const allowedCidrs = ["127.0.0.0/8"]
  const config: ApiConfig = {
    ...common,
    listenHost: "127.0.0.1",
    port: 0,
    jwtSecret,
    secretsKey,
    webhookAllowedCidrs: allowedCidrs,
    compression: { enabled: false },
    snapshotCreate: "async",
    twinWaitMs: 10_000,
    streamHeartbeatMs: 15_000,
    keepAliveMs,
    ...changedApi,
  }
  const { url } = opened.use(await startApi(config, log, { database }))
  const webhooks = { allowedCidrs, stackPorts: [] }
  const dispatcher = { ...common, secretsKey, webhooks, eventRetentionMs: 86_400_000 }
  opened.use(await startDispatcher(dispatcher, log, shared))

  const place = {
    dataDir,
    storageDir: join(dataDir, "storage"),
    host: `host-${cluster}`,
    pool: `pool-${cluster}`,
  }
  const worker: CaptureWorkerConfig = {
    ...common,
    ...place,
    imagesDir,
    hostPaths: [imagesDir],
    qemuBinary: qemu.binary,
    vmms: new Map(),
    qemuImg: qemu.qemuImg,
    attachBinaries: [qemu.binary],
    accelerator: "tcg",
    // Stand-ins open none.
    kvmDevice: join(root, "kvm"),
    staging: undefined,
    vmUids,
    spaceFloorBytes: 0,
    diskOvercommit: undefined,
    resumeRoomBytes: 1024 ** 2,
    logBytesMax,
    attachedLookMs: 30_000,
    pauseLimitMs: 60_000,
    // Our own guest knows no power button.
    stopGraceMs: 0,
    mergeQuietMs: 0,
    concurrency: 2,
  }
  const token = await mintToken(jwtSecret, 3_600)
  const http = client({ url, token })
  const generationDir: TestStack["generationDir"] = ({ id }, generation = 1) =>
    join(dataDir, "instances", id, String(generation))
  const resources = opened.move()
  return {
    api: http,
    url,
    token,
    ask: (method, path, ask = {}) => request(url, method, path, ask),
    db,
    dataDir,
    storageDir: place.storageDir,
    imagesDir,
    clusterId: cluster,
    generationDir,
    async payloadDir(id) {
      const [token = ""] = await readdir(join(place.storageDir, "snapshots", id))
      return join(place.storageDir, "snapshots", id, token)
    },
    startCaptureWorker: async (change) =>
      resources.use(await startCaptureWorker({ ...worker, ...change }, log, shared)),
    spawn: async (app, env = {}, by = []) => {
      const settings = {
        DATABASE_URL: databaseUrl,
        ...(redisUrl !== undefined && { REDIS_URL: redisUrl }),
        DATA_DIR: dataDir,
        HOST_NAME: place.host,
        STORAGE_POOL: place.pool,
        QEMU_BINARY: qemu.binary,
        QEMU_ACCELERATOR: "tcg",
        JWT_SECRET: jwtSecret,
        SECRETS_KEY: secretsKey,
        ...(app === "api" && { PORT: "0" }),
        ...env,
      }
      const started = await spawnApp(app, settings, by)
      resources.defer(async () => {
        started.child.kill("SIGKILL")
        await started.ended
      })
      return started
    },
    startCompressionWorker: async (change) =>
      resources.use(
        await startCompressionWorker(
          { ...common, ...place, threads: 2, scrubIntervalMs: 0, ...change },
          log,
          shared,
        ),
      ),
    async launch(name, launch = { image: "heartbeat" }) {
      const instance = await http.request<InstanceResource>("POST", "/instances", { name, launch })
      await untilTrue(generationDir(instance), async () => (await serialLines(generationDir(instance))) >= 3)
      return instance
    },
    snapshot: (instance, body = {}) =>
      http.request("POST", `/instances/${instance.id}/snapshots`, { kind: "Standby", ...body }),
    settled: (id) => http.request("GET", `/snapshots/${id}`, undefined, { prefer: "wait=55" }),
    async until(look) {
      for (;;) {
        const changed = Promise.withResolvers<void>()
        // A change shows in its resource at once, in the feed once it has its number.
        const stops = (["events", "numbered"] as const).map((channel) =>
          waker.listen(channel, () => changed.resolve()),
        )
        const found = await look()
        if (found === undefined) await changed.promise
        for (const stop of stops) stop()
        if (found !== undefined) return found
      }
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

/** Waits until `check` holds, looking whenever something in `dir` changes. */
export async function untilTrue(dir: string, check: () => Promise<boolean>): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const look = (): void => {
    check().then((holds) => holds && resolve(), reject)
  }
  const watcher = watch(dir, look)
  const deadline = AbortSignal.timeout(patienceMs)
  deadline.addEventListener("abort", () =>
    reject(new Error(`nothing came of waiting ${patienceMs} ms on ${dir}`)),
  )
  look()
  await promise.finally(() => watcher.close())
}

/** Whole lines the guest has printed. */
export async function serialLines(dir: string): Promise<number> {
  return (await serial(dir)).split("\n").length - 1
}

export async function serial(dir: string): Promise<string> {
  return readFile(join(dir, "serial.log"), "latin1").catch(() => "")
}

/** Starts an app as a process of its own and waits until it says that it has started. */
async function spawnApp(
  name: string,
  env: Record<string, string>,
  by: readonly string[],
): Promise<AppProcess> {
  const [program, ...args] = [...by, process.execPath, join(apps, name, "src/main.ts")]
  const child = spawn(program, args, {
    env: { PATH: process.env["PATH"], NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"], ...env },
    stdio: ["ignore", "ignore", "pipe"],
  })
  const ended = once(child, "exit").then(([status]) => status as number | null)
  const started = Promise.withResolvers<void>()
  createInterface({ input: child.stderr }).on("line", (line) => {
    if (line.includes('"msg":"started"')) started.resolve()
  })
  void ended.then(() => started.reject(new Error(`${name} ended before it had started`)))
  await started.promise
  return { child, ended }
}

/** After a test on a stack that others use too: no VM ticks on, and every name is free. */
export async function deleteInstances({ api }: TestStack): Promise<void> {
  const left = await api.request<InstanceResource[]>("GET", "/instances")
  await Promise.all(left.map(({ id }) => api.request("DELETE", `/instances/${id}`)))
}

/** As if the time of every lease had run out: the dispatcher's sweep finds them at its next round. */
export async function expireLeases(stack: TestStack): Promise<void> {
  await stack.db
    .updateTable("operations")
    .set({ lease_expires_at: new Date(0) })
    .where("state", "=", "running")
    .execute()
}
