import { readdir, readFile } from "node:fs/promises"
import { openFiles } from "./processes.ts"

/** A line of /proc/net/unix (proc_pid_net(5)). */
export interface UnixSocket {
  readonly inode: string
  /**
   * As the process spelled it when it bound the socket: perhaps relative. An abstract one begins with `@`
   * instead of a zero byte.
   */
  readonly path: string
  readonly listening: boolean
}

/** SO_ACCEPTCON in the flags. */
const listening = 0x10000

/** Those of this network namespace that have a path. */
export async function unixSockets(): Promise<UnixSocket[]> {
  const lines = (await readFile("/proc/net/unix", "utf8")).split("\n").slice(1)
  return lines.flatMap((line) => {
    const match = /^\S+ \S+ \S+ (\S+) \S+ \S+ +(\d+) (.+)$/.exec(line)
    if (match === null) return []
    const [, flags = "", inode = "", path = ""] = match
    return [{ inode, path, listening: (Number.parseInt(flags, 16) & listening) !== 0 }]
  })
}

/**
 * The processes, of those that we may look at, that hold the abstract socket with this name (its first byte
 * is zero).
 */
export async function holdersOf(name: string): Promise<number[]> {
  const bound = (await unixSockets()).filter(({ path }) => path === name.replace("\0", "@"))
  const pids = (await readdir("/proc")).filter((entry) => /^\d+$/.test(entry)).map(Number)
  const holders: number[] = []
  for (const pid of pids) {
    // It may end, or belong to a user whose files are hidden from us.
    const own = new Set(await openFiles(pid).catch(() => []))
    if (bound.some(({ inode }) => own.has(`socket:[${inode}]`))) holders.push(pid)
  }
  return holders
}
