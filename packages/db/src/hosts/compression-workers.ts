import type { Algorithm } from "@stillframe/domain/compression"
import type { Problem } from "@stillframe/domain/problem"
import { clock, clockPlus } from "../client.ts"
import type { Database } from "../schema.ts"
import { hostFreshMs } from "./hosts.ts"

export interface CompressionWorker {
  /** The name of its host. */
  readonly name: string
  readonly pool: string
  /** The binding in use for each algorithm, for people. */
  readonly codecs: Readonly<Record<Algorithm, string>>
  /** At present; absent: none. */
  readonly problems?: readonly Problem[]
}

/** Registers a worker of a pool, or says that it still lives. */
export async function compressionHeartbeat(db: Database, worker: CompressionWorker): Promise<void> {
  const alive = {
    codecs: JSON.stringify(worker.codecs),
    problems: JSON.stringify(worker.problems ?? []),
    heartbeat_at: clock,
  }
  await db
    .insertInto("compression_workers")
    .values({ ...worker, ...alive })
    .onConflict((conflict) => conflict.columns(["pool", "name"]).doUpdateSet(alive))
    .execute()
}

/** The workers that were heard of lately. */
export async function liveCompressionWorkers(db: Database): Promise<Required<CompressionWorker>[]> {
  return db
    .selectFrom("compression_workers")
    .select(["name", "pool", "codecs", "problems"])
    .where("heartbeat_at", ">", clockPlus(-hostFreshMs))
    .orderBy("pool")
    .orderBy("name")
    .limit(1_000)
    .execute()
}
