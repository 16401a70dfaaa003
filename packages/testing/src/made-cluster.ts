import { execFile } from "node:child_process"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { startEmbeddedPostgres } from "@stillframe/embedded-postgres/start"
import { scratchFolder } from "./scratch.ts"

/**
 * The data of a Postgres that was started once and stopped, for tests that are about its later starts: to
 * make them costs most.
 */
export interface MadeCluster extends AsyncDisposable {
  /** The port of its one start. */
  readonly port: number
  /** Makes `dataDir` a copy. */
  copyTo(dataDir: string): Promise<void>
}

export async function makeCluster(password: string): Promise<MadeCluster> {
  const dir = await scratchFolder("stillframe-cluster-")
  const dataDir = join(dir, "postgres")
  const postgres = await startEmbeddedPostgres({ dataDir, password, sync: false })
  await postgres.stop()
  return {
    port: Number(new URL(postgres.url).port),
    copyTo: async (copy) => void (await promisify(execFile)("cp", ["-a", dataDir, copy])),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true }),
  }
}
