import { readdir, readlink, realpath, stat } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { openFiles } from "../../process/processes.ts"
import { unixSockets, type UnixSocket } from "../../process/unix-sockets.ts"
import { openMonitor, type Monitor } from "../monitor/qmp.ts"

/** The real path of a control socket. Throws `invalid_request` where there is none. */
export async function resolveControlSocket(path: string): Promise<string> {
  try {
    // The name itself may be a link; the directory is where the socket is opened from.
    const real = join(await realpath(dirname(await realpath(path))), basename(await realpath(path)))
    if ((await stat(real)).isSocket()) return real
  } catch (error) {
    throw notThere(path, error)
  }
  throw notThere(path)
}

/** Connects to the monitor of an attached VM by its real path. Throws as `openMonitor` does. */
export async function openControlSocket(controlSocket: string): Promise<Monitor> {
  return await openMonitor(dirname(controlSocket), basename(controlSocket), { kind: "attached" })
}

/** The processes that listen on a unix socket by this name now, or did before another one took the name. */
export async function listenersOf(controlSocket: string): Promise<number[]> {
  const candidates = (await unixSockets()).filter(
    ({ listening, path }) => listening && basename(path) === basename(controlSocket),
  )
  if (candidates.length === 0) return []
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number)
  const found: number[] = []
  for (const pid of pids) if (await listens(pid, candidates, controlSocket)) found.push(pid)
  return found
}

/** The process's connected sockets of that name: what it has accepted. */
export async function acceptedBy(pid: number, controlSocket: string): Promise<Set<string>> {
  const own = new Set(await openFiles(pid))
  const sockets = await unixSockets()
  const accepted = sockets.filter(
    ({ inode, listening, path }) =>
      !listening && basename(path) === basename(controlSocket) && own.has(`socket:[${inode}]`),
  )
  return new Set(accepted.map(({ inode }) => inode))
}

async function listens(
  pid: number,
  candidates: readonly UnixSocket[],
  controlSocket: string,
): Promise<boolean> {
  // It may end, or belong to someone whose files are hidden from us.
  const own = new Set(await openFiles(pid).catch(() => []))
  const held = candidates.filter(({ inode }) => own.has(`socket:[${inode}]`))
  if (held.length === 0) return false
  const cwd = await readlink(`/proc/${pid}/cwd`)
  const names = held.map(async ({ path }) => await realpath(resolve(cwd, path)).catch(() => undefined))
  return (await Promise.all(names)).includes(controlSocket)
}

const notThere = (path: string, cause?: unknown): StillframeError =>
  new StillframeError(
    "invalid_request",
    `${JSON.stringify(path.slice(0, 200))} is not a unix socket on this host; give the path of QEMU's -qmp socket`,
    { cause },
  )
