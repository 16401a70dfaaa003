import { readdirSync, readFileSync } from "node:fs"
import { readFile, readlink, readdir } from "node:fs/promises"
import { setTimeout as delay } from "node:timers/promises"
import { StillframeError } from "@stillframe/domain/errors"

/** A process for as long as it lives: a pid alone comes back, and starts again with every boot. */
export interface ProcessIdentity {
  pid: number
  /** Clock ticks since boot: field 22 of /proc/<pid>/stat. */
  startTime: number
  bootId: string
}

const END_POLL_MS = 5
const KILL_TIMEOUT_MS = 10_000
/** The kernel's for all that it tells programs, on every architecture that Node runs on. */
const TICKS_PER_SECOND = 100
/** Clocks drift, and no pid comes back this soon. */
const AGE_SLACK_MS = 10_000

/** The identity of a live process, or undefined when there is none. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  const [stat, bootId] = await Promise.all([readStat(pid), readBootId()])
  return stat === undefined || hasEnded(stat) ? undefined : { pid, startTime: stat.startTime, bootId }
}

/**
 * The identity of a live process that has run for at least `ageMs`. A pid that was given away again
 * meanwhile, or by another boot, belongs to a younger process.
 */
export async function identifyOlder(pid: number, ageMs: number): Promise<ProcessIdentity | undefined> {
  const [identity, uptime] = await Promise.all([identifyProcess(pid), readFile("/proc/uptime", "utf8")])
  if (identity === undefined) return undefined
  const ranMs = (Number.parseFloat(uptime) - identity.startTime / TICKS_PER_SECOND) * 1_000
  return ranMs + AGE_SLACK_MS >= ageMs ? identity : undefined
}

/** True if this very process still runs; a zombie does not. */
export async function processAlive(identity: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(identity.pid)
  return now !== undefined && now.startTime === identity.startTime && now.bootId === identity.bootId
}

/**
 * Ends a process: SIGTERM, then SIGKILL after `graceMs`. Resolves when it is gone; throws `timeout` when even
 * that does not end it.
 */
export async function endProcess(identity: ProcessIdentity, { graceMs }: { graceMs: number }): Promise<void> {
  await sendSignal(identity, "SIGTERM")
  if (await goneWithin(identity, graceMs)) return
  await sendSignal(identity, "SIGKILL")
  if (await goneWithin(identity, KILL_TIMEOUT_MS)) return
  throw new StillframeError(
    "timeout",
    `process ${identity.pid} did not end on SIGKILL; it may hang in a disk or network file system`,
  )
}

/** The targets of all open descriptors of a process, as /proc names them. */
export async function openFiles(pid: number): Promise<string[]> {
  const directory = `/proc/${pid}/fd`
  const links = await Promise.all(
    (await readdir(directory)).map(async (fd) => await readlink(`${directory}/${fd}`).catch(ignoreMissing)),
  )
  return links.filter((link) => link !== undefined)
}

/**
 * The processes, of those that we may look at, that work in one of these directories. A VM works in that of
 * its generation.
 */
export async function processesIn(dirs: readonly string[]): Promise<ProcessIdentity[]> {
  const wanted = new Set(dirs)
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number)
  const found = pids.map(async (pid) => {
    // A process may end meanwhile, or belong to a user whose processes are hidden from us.
    const dir = await readlink(`/proc/${pid}/cwd`).catch(() => undefined)
    return dir !== undefined && wanted.has(dir) ? identifyProcess(pid) : undefined
  })
  return (await Promise.all(found)).filter((process) => process !== undefined)
}

/**
 * The users of all processes that we may look at, by whatever of a process's four ids. One after the other
 * and at once: that takes a fraction of the time, and the caller has nothing else to do meanwhile.
 */
export function usersWithProcesses(): Set<number> {
  const users = new Set<number>()
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid)) continue
    // Not the owner of its directory, which a process may change to root.
    for (const uid of uidsOf(pid)) users.add(uid)
  }
  return users
}

function uidsOf(pid: string): number[] {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "latin1")
    // One that has ended may wait for ever for its parent to take note of it.
    if (/^State:\s+Z/m.test(status) && /^Threads:\s+[01]$/m.test(status)) return []
    return (/^Uid:\s+(.+)$/m.exec(status)?.[1] ?? "").split(/\s+/).map(Number)
  } catch (error) {
    // It has ended meanwhile.
    ignoreMissing(error)
    return []
  }
}

async function sendSignal(identity: ProcessIdentity, name: NodeJS.Signals): Promise<void> {
  if (!(await processAlive(identity))) return
  try {
    process.kill(identity.pid, name)
  } catch (error) {
    // It ended between the look and the signal.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error
  }
}

async function goneWithin(identity: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  for (const end = performance.now() + timeoutMs; performance.now() < end; await delay(END_POLL_MS)) {
    if (!(await processAlive(identity))) return true
  }
  return false
}

interface ProcessStat {
  readonly state: string
  readonly threads: number
  readonly startTime: number
}

/**
 * A killed process is a zombie as soon as its first thread has ended. The others hold its files, locks and
 * sockets until they end.
 */
function hasEnded({ state, threads }: ProcessStat): boolean {
  return state === "Z" && threads <= 1
}

async function readStat(pid: number): Promise<ProcessStat | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(ignoreMissing)
  if (text === undefined) return undefined
  // The second field is the program's name in parentheses and may hold anything, spaces and parentheses
  // included.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ")
  return { state: fields[0] ?? "", threads: Number(fields[17]), startTime: Number(fields[19]) }
}

/** The boot id of this machine's kernel: another one after each boot. */
export async function readBootId(): Promise<string> {
  return (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim()
}

function ignoreMissing(error: unknown): undefined {
  const { code } = error as NodeJS.ErrnoException
  if (code !== "ENOENT" && code !== "ESRCH") throw error
}
