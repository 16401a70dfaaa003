import { spawn } from "node:child_process"
import { constants } from "node:fs"
import { open } from "node:fs/promises"
import { join } from "node:path"
import { isOutOfDescriptors, StillframeError, toStillframeError } from "@stillframe/domain/errors"
import { openRegular } from "@stillframe/storage/open-regular"
import { logHasWhy, refusedGuest } from "../refusal.ts"
import { confine, notExecutedStatus } from "./confine.ts"
import { endProcess, identifyProcess, type ProcessIdentity } from "./processes.ts"
import type { VmUser } from "./vm-users.ts"

export interface StartOptions<T> {
  /** For people: `QEMU`. */
  readonly program: string
  /** The setting that names the binary. */
  readonly setting: string
  /** Absolute: it gets an environment of its own, with nothing of ours in it. */
  readonly binary: string
  readonly args: readonly string[]
  /** Its working directory. */
  readonly dir: string
  /** In `dir`: what it writes to standard output and standard error. */
  readonly log: string
  /** In `dir`: standard output alone, where that is the guest's serial console. */
  readonly console?: string
  /** In `dir`: a log that it keeps itself, whose last words count too. */
  readonly ownLog?: string
  /**
   * `stillframe-<cluster id>-<instance id>`, where its arguments have no place for it: how `findProcess`
   * finds it again.
   */
  readonly identity?: string
  /** The unprivileged user it runs as where this process is root. It must be able to execute `binary`. */
  readonly runAs?: VmUser | undefined
  /**
   * Until it is of use, and is what it should be. Given up when the process ends meanwhile; when it rejects,
   * the process is ended.
   */
  readonly untilReady: (vm: ProcessIdentity) => Promise<T>
}

/** In the environment of a process, for want of another place. */
export const identityVariable = "STILLFRAME_VM"

/** In a directory that may be the VM's user's: not to where a name of his leads. */
const appendHere =
  constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK
const endGraceMs = 2_000
const logTailBytes = 4_096
/** The reason of a failed start comes some lines before the end. */
const lastLines = 3

/**
 * Starts a hypervisor's process in a session of its own, so that it outlives us. Throws
 * `hypervisor_unavailable` when it can't be executed, `insufficient_resources` when the host has no memory
 * for it, `hypervisor_failed` when it ends (a `GuestRefusal` where it ended by itself), each with its last
 * words in `said`, and what `untilReady` throws; then no process is left.
 */
export async function startProcess<T>(
  options: StartOptions<T>,
): Promise<{ identity: ProcessIdentity; ready: T }> {
  const { child, exited } = await spawnIn(options)
  const identity = await identifyProcess(child.pid ?? 0)
  try {
    if (identity === undefined) throw await exited
    const ready = await Promise.race([options.untilReady(identity), exited])
    child.unref()
    return { identity, ready }
  } catch (error) {
    if (identity !== undefined) await endProcess(identity, { graceMs: endGraceMs })
    throw error
  }
}

/**
 * The last lines of its logs, for our own: often the only place where a hypervisor says why it could not
 * start or load. Without its binary's name, its command line and the paths of its directory.
 */
export async function lastWords(dir: string, ...logs: string[]): Promise<string> {
  const words = await Promise.all(logs.map(async (log) => await lastLinesOf(join(dir, log))))
  const said = words.filter((lines) => lines !== "").join("; ")
  return cleanWords(said, dir) || "it said nothing"
}

export function cleanWords(words: string, dir: string): string {
  return words
    .replaceAll(`${dir}/`, "")
    .replaceAll(/(^|; )qemu(-system-\S+)?: /g, "$1")
    .replaceAll(/(^|; )-[a-z]+ (\{.*?\}|\S+): /g, "$1")
}

async function lastLinesOf(log: string): Promise<string> {
  const text = await tailOf(log).catch((error: unknown) => String(error))
  return text.trim().split("\n").slice(-lastLines).join("; ")
}

/** The process may have left a pipe there, or a log without an end. */
async function tailOf(log: string): Promise<string> {
  await using file = await openRegular(log)
  const { size } = await file.stat()
  const start = Math.max(0, size - logTailBytes)
  const { buffer, bytesRead } = await file.read(Buffer.alloc(logTailBytes), 0, logTailBytes, start)
  return buffer.toString("utf8", 0, bytesRead)
}

async function spawnIn<T>(options: StartOptions<T>) {
  const { dir, binary, args, runAs, identity } = options
  const log = await open(join(dir, options.log), appendHere, 0o600)
  const out = options.console === undefined ? log : await open(join(dir, options.console), appendHere, 0o600)
  try {
    // The child enters `cwd` before it gives up root, so the directory may lie where its user could never
    // walk.
    const { program, args: words, user } = confine(binary, args, runAs)
    const child = spawn(program, [...words], {
      cwd: dir,
      detached: true,
      stdio: ["ignore", out.fd, log.fd],
      // Ours holds secrets, and what runs in there may be broken out of.
      env: {
        PATH: "/usr/local/bin:/usr/bin:/bin",
        LC_ALL: "C",
        ...(identity !== undefined && { [identityVariable]: identity }),
      },
      ...user,
    })
    const exited = Promise.withResolvers<never>()
    child.once("error", (error) => exited.reject(notExecuted(options, error)))
    child.once("exit", (code, signal) => {
      void endedError(options, code ?? signal).then(exited.reject)
    })
    // Once the VM runs nobody waits for this any more, and its end is the watcher's business.
    exited.promise.catch(() => {})
    return { child, exited: exited.promise }
  } finally {
    await log.close()
    if (out !== log) await out.close()
  }
}

function notExecuted(options: StartOptions<unknown>, cause: Error): StillframeError {
  return isOutOfDescriptors(cause) ? toStillframeError(cause) : unavailable(options, cause.message, cause)
}

const unavailable = (
  { program, setting }: StartOptions<unknown>,
  said: string,
  cause?: unknown,
): StillframeError =>
  new StillframeError(
    "hypervisor_unavailable",
    `${program} cannot be executed on this host; check ${setting}`,
    { cause, said },
  )

async function endedError(
  options: StartOptions<unknown>,
  how: number | NodeJS.Signals | null,
): Promise<StillframeError> {
  const { program, dir, log, ownLog, runAs } = options
  const said = await lastWords(dir, log, ...(ownLog === undefined ? [] : [ownLog]))
  if (noMemory.test(said))
    return new StillframeError(
      "insufficient_resources",
      "the host has no memory for this VM; end another one, or give it less",
      { said },
    )
  if (runAs?.confined === true && typeof how === "number" && notExecutedStatus.has(how))
    return unavailable(options, said)
  if (typeof how === "number")
    return refusedGuest(`${program} ended with status ${how} before the VM ran; ${logHasWhy}`, said)
  return new StillframeError(
    "hypervisor_failed",
    `${program} was ended by ${how} before the VM ran; ${logHasWhy}`,
    { said },
  )
}

/** Messages of hypervisors that cannot get the guest's memory from the kernel. */
const noMemory = /cannot set up guest memory|Cannot allocate memory/
