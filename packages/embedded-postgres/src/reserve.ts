import { randomBytes } from "node:crypto"
import { open, rm, stat, statfs } from "node:fs/promises"
import { dirname } from "node:path"
import { openOutage } from "@stillframe/domain/postgres/outage"
import type { Problem } from "@stillframe/domain/problem"
import type { KeeperLog } from "./keeper.ts"

const mib = 1024 ** 2
/** Enough for Postgres to recover from a crash and to delete: some segments of its log. */
const reserveBytes = 64 * mib
/** With less than this beside the reserve, or without a reserve, nothing new is created. */
const floorBytes = 128 * mib
const giveUpBytes = 16 * mib
const lookMs = 1_000

/** Room on the database's disk that is kept for deleting when everything else has filled it. */
export interface DiskReserve extends AsyncDisposable {
  /** Undefined while there is room for new things. */
  problem(): Problem | undefined
  /** Gives the reserve up if the disk is full. Called before Postgres is started. */
  look(): Promise<void>
}

export interface ReserveOptions {
  /** A file on the disk of the database; made and removed by this. */
  readonly file: string
  readonly log: KeeperLog
  /** The free bytes of that disk. Tests only. */
  readonly freeBytes?: () => Promise<number>
}

/**
 * Looks every second. Makes the reserve when there is room for it and the floor, and gives it up when the
 * disk is full and fills no further. Without a whole reserve there is a problem: what is created then could
 * take the room that deleting needs.
 */
export function openReserve({ file, log, freeBytes = () => freeOn(file) }: ReserveOptions): DiskReserve {
  let problem: Problem | undefined
  let looking: Promise<void> = Promise.resolve()
  let freeBefore = Infinity
  const blind = openOutage(log, {
    lost: "the room on the database's disk is not known, or cannot be kept",
    back: "the room on the database's disk is known again",
  })

  async function look(atOnce: boolean): Promise<void> {
    const free = await freeBytes()
    // A guest that is still writing would take the room; once it can't, its VM stands still.
    if (free < giveUpBytes && (atOnce || free >= freeBefore)) await rm(file, { force: true })
    freeBefore = free
    const whole = await isWhole(file)
    const needed = whole ? floorBytes : floorBytes + reserveBytes
    if (free < needed) return tell(diskFull(needed))
    try {
      if (!whole) await make(file)
      tell(undefined)
    } catch (error) {
      tell(noReserve)
      throw error
    }
  }

  function tell(next: Problem | undefined): void {
    if (next !== undefined && problem === undefined)
      log.error({ code: next.code, dir: dirname(file) }, next.message)
    if (next === undefined && problem !== undefined) log.info({}, "the database's disk has room again")
    problem = next
  }

  // One after the other: a slow disk must not pile up looks.
  function lookNext(atOnce: boolean): Promise<void> {
    looking = looking.then(() => look(atOnce)).then(blind.worked, blind.failed)
    return looking
  }

  const timer = setInterval(() => void lookNext(false), lookMs)
  return {
    problem: () => problem,
    look: () => lookNext(true),
    async [Symbol.asyncDispose]() {
      clearInterval(timer)
      await looking
    },
  }
}

function diskFull(needed: number): Problem {
  return {
    code: "insufficient_storage",
    message: `the disk of the database has less than ${needed / mib} MiB free: delete snapshots or instances, or free room on it; nothing new is created until then`,
  }
}

const noReserve: Problem = {
  code: "insufficient_storage",
  message: `the disk of the database cannot hold the reserve of ${reserveBytes / mib} MiB that deletions need. Check its quota and the owner of its directory; the API refuses creates until then`,
}

async function freeOn(file: string): Promise<number> {
  const { bavail, bsize } = await statfs(dirname(file))
  return bavail * bsize
}

async function isWhole(file: string): Promise<boolean> {
  // A reserve that cannot be looked at is made anew, which reports why it cannot.
  const stats = await stat(file).catch(() => undefined)
  return stats?.size === reserveBytes
}

/** Random bytes: a file system that compresses would keep no room for zeros. */
async function make(file: string): Promise<void> {
  const chunk = randomBytes(mib)
  await using handle = await open(file, "w", 0o600)
  try {
    for (let written = 0; written < reserveBytes; written += chunk.length) await handle.writeFile(chunk)
  } catch (error) {
    // Half a reserve is none; the next look tries again.
    await rm(file, { force: true })
    throw error
  }
}
