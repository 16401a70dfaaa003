import {
  chownSync,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readlinkSync,
  statSync,
  type Stats,
} from "node:fs"
import { join } from "node:path"
import { StillframeError } from "@stillframe/domain/errors"
import { openDirectory } from "../files/open-directory.ts"

/**
 * `vm`: one of ours, whose socket its directory's owner made, or we. `attached`: its owner may be any user,
 * and its path is a real one.
 */
export type SocketKind = "vm" | "attached"

/** A unix socket that was found to be the VM's own; its name may mean something else by now. */
export interface OwnSocket {
  /** To connect by, until `close`. */
  readonly path: string
  readonly close: () => void
}

/** From open(2), because Node does not name it: such a descriptor names a file without opening it. */
const pathOnly = 0o10000000

/**
 * Finds a VM's socket in a directory that the VM's user may write: a process that was broken out of may have
 * given its name to the socket of another VM. Throws `hypervisor_untrusted` for that, and as `notReached`
 * says when there is nothing.
 */
export function openOwnSocket(directory: string, name: string, kind: SocketKind = "vm"): OwnSocket {
  if (process.platform !== "linux") return ownSocketByName(directory, name)
  const inside = openDirectory(directory)
  try {
    const fd = existing(name, () => openSync(`${inside.path}/${name}`, pathOnly | constants.O_NOFOLLOW))
    let open = true
    const close = (): void => {
      if (open) closeSync(fd)
      open = false
    }
    const there = kind === "vm" || readlinkSync(inside.path) === directory
    if (there && isOwn(fstatSync(fd), statSync(inside.path), kind))
      return { path: `/proc/self/fd/${fd}`, close }
    close()
    throw notItsOwn(name, kind)
  } finally {
    inside.close()
  }
}

/**
 * Throws `hypervisor_untrusted` for a name that is not the VM's own socket. A name that is gone passes: the
 * VM may be ending.
 */
export function assertOwnSocket(directory: string, name: string): void {
  try {
    openOwnSocket(directory, name).close()
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code !== "hypervisor_gone") throw error
  }
}

/**
 * Gives a socket that we made to its directory's owner. That user may have given its name to a
 * file of ours that other VMs share. Throws `hypervisor_untrusted` then.
 */
export function giveSocket(directory: string, name: string): void {
  const { uid, gid } = statSync(directory)
  if (uid === process.geteuid?.()) return
  const { path, close } = openOwnSocket(directory, name)
  try {
    chownSync(path, uid, gid)
  } finally {
    close()
  }
}

/** For systems without `/proc/self/fd`, where no VM runs as another user. */
function ownSocketByName(directory: string, name: string): OwnSocket {
  const path = join(directory, name)
  const found = existing(name, () => lstatSync(path))
  if (!isOwn(found, statSync(directory), "vm")) throw notItsOwn(name, "vm")
  return { path, close: () => {} }
}

function isOwn(socket: Stats, { uid }: Stats, kind: SocketKind): boolean {
  if (!socket.isSocket()) return false
  return kind === "attached" || socket.uid === uid || socket.uid === process.geteuid?.()
}

function existing<T>(name: string, look: () => T): T {
  try {
    return look()
  } catch (cause) {
    throw notReached(name, cause)
  }
}

/** Says why a socket could not be connected to. */
export function notReached(socketName: string, cause: unknown): StillframeError {
  const { code } = cause as NodeJS.ErrnoException
  // Only these say that the process has ended.
  if (code === "ENOENT" || code === "ECONNREFUSED")
    return new StillframeError(
      "hypervisor_gone",
      `no process listens on ${socketName}: the VM's process has ended`,
      { cause },
    )
  // Its backlog is full: others wait for their turn, or it has hung for as many connections.
  if (code === "EAGAIN")
    return new StillframeError(
      "hypervisor_silent",
      `${socketName} takes no more connections: the VM's process is stopped, hangs or serves other programs; continue it and try again`,
      { cause },
    )
  return new StillframeError(
    "hypervisor_unavailable",
    `${socketName} can't be reached (${code}); try again`,
    {
      cause,
    },
  )
}

function notItsOwn(name: string, kind: SocketKind): StillframeError {
  return new StillframeError(
    "hypervisor_untrusted",
    kind === "vm"
      ? `${name} in the VM's directory is not the VM's own socket; its guest may have escaped the VM, so stop the instance`
      : `${name} is not the socket that the VM was attached by; its guest may have escaped the VM, so end its process`,
  )
}
