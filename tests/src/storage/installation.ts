import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { OwnedDatabase } from "@stillframe/db/client"
import { clusterId } from "@stillframe/db/hosts/hosts"
import { poolRegister } from "@stillframe/db/hosts/pools"
import { createInstance } from "@stillframe/db/instances/instances"
import { createSnapshot, publishCapture, startCapture } from "@stillframe/db/snapshots/snapshots"
import { createId } from "@stillframe/domain/ids"
import { claimPool } from "@stillframe/storage/places/claim-pool"
import { testDatabase } from "@stillframe/testing/database"
import { expect } from "vitest"

export interface Installation extends AsyncDisposable {
  readonly db: OwnedDatabase
  readonly databaseUrl: string
  readonly id: string
  /** A path for a directory that is not there yet. */
  dir(name: string): string
  /** Opens the pool as a worker does at its start. Resolves with the pool's id. */
  claim(name: string, dir: string, host?: string): Promise<string>
}

export async function installation(): Promise<Installation> {
  await using opened = new AsyncDisposableStack()
  const { db, url: databaseUrl } = opened.use(await testDatabase())
  const root = await mkdtemp(join(tmpdir(), "stillframe-pools-"))
  opened.defer(() => rm(root, { recursive: true }))
  const resources = opened.move()
  return {
    db,
    databaseUrl,
    id: await clusterId(db),
    dir: (name) => join(root, name),
    claim: async (pool, dir, host = "h") => (await claimPool(dir, poolRegister(db, { pool, host }))).id,
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  }
}

/** A snapshot that is ready in `pool`; with `dir` its payload lies there. */
export async function snapshotIn(
  { db }: Pick<Installation, "db">,
  pool: string,
  dir?: string,
): Promise<string> {
  const source = { name: createId(), hypervisor: "qemu", host: "h" } as const
  const instance = await createInstance(db, {
    ...source,
    image: "heartbeat",
    launch: {},
    vcpus: 1,
    memoryMib: 64,
  })
  const { id } = await createSnapshot(db, { kind: "Stopped", queue: "q", pool, instance })
  await startCapture(db, id)
  await publishCapture(db, id, { ...stopped, payload: "token" })
  if (dir === undefined) return id
  const payload = join(dir, "snapshots", id, "token")
  await mkdir(payload, { recursive: true })
  await writeFile(join(payload, "manifest.json"), "{}")
  return id
}

const stopped = {
  hypervisor: "qemu",
  memoryFile: null,
  memorySha256: null,
  manifestSha256: "0".repeat(64),
  sizeBytes: 1,
  storedBytes: 1,
  sharedBytes: 0,
  pauseMs: 0,
  capturedAt: new Date(0),
  compress: false,
} as const

/** As versions before pools had an identity left their directories. */
export async function oldDirectory({ id }: Pick<Installation, "id">, dir: string): Promise<void> {
  await mkdir(join(dir, "snapshots"), { recursive: true })
  await writeFile(join(dir, "cluster.json"), JSON.stringify({ id }))
}

export function refusal(...words: string[]): object {
  return {
    code: "storage_unavailable",
    message: expect.stringMatching(new RegExp(words.join("(.|\n)*"))),
  }
}
