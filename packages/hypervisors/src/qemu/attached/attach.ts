import { readFile, readlink, realpath, stat } from "node:fs/promises"
import { StillframeError } from "@stillframe/domain/errors"
import type { AttachedVm, AttachOptions } from "../../attached.ts"
import { isInside, type HostPathRules } from "../../disks/host-paths.ts"
import { checkPathShape, checkSize } from "../../launch-config.ts"
import { identifyProcess, type ProcessIdentity } from "../../process/processes.ts"
import { isVmUser, type VmUsers } from "../../process/vm-users.ts"
import type { Monitor } from "../monitor/qmp.ts"
import { queryMigration } from "../monitor/resume.ts"
import { standstillOf } from "../monitor/standstill.ts"
import { acceptedBy, listenersOf, openControlSocket, resolveControlSocket } from "./control-socket.ts"
import { oddFigure, readAttachedDisks } from "./disks.ts"
import { launchForm } from "./launch-form.ts"

/**
 * Adopts a running QEMU after making sure that it is the process behind the socket, one of the configured
 * programs, of a user we may act for, and free to talk to us. Changes nothing about it.
 *
 * Throws `invalid_request` (no socket, a process or a disk that is not to be used), `conflict` (another
 * program holds the monitor, or the pid is not the listener), `not_supported` (disks that can't be captured),
 * `hypervisor_gone`.
 */
export async function attachQemu(options: AttachOptions): Promise<AttachedVm> {
  checkPathShape(options.controlSocket)
  const controlSocket = await resolveControlSocket(options.controlSocket)
  await assertForeign(controlSocket, options.rules)
  const process = await listener(controlSocket, options.pid)
  await assertConfigured(process.pid, options.binaries)
  const user = await userOf(process.pid, options.users)
  const accepted = await acceptedBy(process.pid, controlSocket)
  const monitor = await greeted(controlSocket)
  try {
    await assertAccepted(process.pid, controlSocket, accepted)
    return { controlSocket, process, user, ...(await look(monitor, process.pid, options)) }
  } finally {
    monitor.close()
  }
}

/** Our own VMs have their sockets in DATA_DIR, and their disks are not kept like a stranger's. */
async function assertForeign(controlSocket: string, { dataDir }: HostPathRules): Promise<void> {
  if (!isInside(controlSocket, await realpath(dataDir).catch(() => dataDir))) return
  throw new StillframeError(
    "invalid_request",
    `${controlSocket} lies in DATA_DIR, so its VM already has an instance; use that`,
  )
}

async function listener(controlSocket: string, pid: number | undefined): Promise<ProcessIdentity> {
  const pids = await listenersOf(controlSocket)
  const [found] = pid === undefined ? pids : pids.filter((listening) => listening === pid)
  const identity = found === undefined ? undefined : await identifyProcess(found)
  if (identity !== undefined) return identity
  throw new StillframeError(
    "conflict",
    pid === undefined
      ? `no visible process listens on ${controlSocket}; its QEMU may have ended`
      : `process ${pid} does not listen on ${controlSocket}; omit pid`,
  )
}

async function assertConfigured(pid: number, binaries: readonly string[]): Promise<void> {
  const running = await stat(`/proc/${pid}/exe`)
  for (const binary of binaries) {
    const known = await stat(binary).catch(() => undefined)
    if (known?.ino === running.ino && known.dev === running.dev) return
  }
  throw new StillframeError(
    "invalid_request",
    `process ${pid} runs ${await readlink(`/proc/${pid}/exe`)}, which is not a configured QEMU; ask the operator to add it to ATTACH_BINARIES`,
  )
}

async function userOf(
  pid: number,
  users: Pick<VmUsers, "first" | "last"> | undefined,
): Promise<{ uid: number; gid: number }> {
  const text = await readFile(`/proc/${pid}/status`, "utf8")
  const id = (field: string): number =>
    Number(new RegExp(`^${field}:\\s+\\d+\\s+(\\d+)`, "m").exec(text)?.[1])
  const user = { uid: id("Uid"), gid: id("Gid") }
  const ours = [0, globalThis.process.getuid?.()].includes(user.uid)
  if (ours || (users !== undefined && isVmUser(users, user.uid))) return user
  throw new StillframeError(
    "invalid_request",
    `process ${pid} belongs to user ${user.uid}; only VMs of root, of the service's user or of VM_UID_RANGE can be attached`,
  )
}

/**
 * A manager such as libvirt keeps QEMU's only connection for itself, and a second client never hears a word.
 */
async function greeted(controlSocket: string): Promise<Monitor> {
  try {
    return await openControlSocket(controlSocket)
  } catch (error) {
    if (!(error instanceof StillframeError) || error.code !== "hypervisor_silent") throw error
    throw new StillframeError(
      "conflict",
      `${controlSocket} gives no greeting: another program, such as libvirt, holds the VM's only monitor connection; give QEMU a second -qmp socket for Stillframe, or end that program`,
      { cause: error },
    )
  }
}

/** A name may have been bound anew: only the connection itself says who answers. */
async function assertAccepted(
  pid: number,
  controlSocket: string,
  before: ReadonlySet<string>,
): Promise<void> {
  const now = await acceptedBy(pid, controlSocket)
  if ([...now].some((inode) => !before.has(inode))) return
  throw new StillframeError(
    "conflict",
    `${controlSocket} is answered by another process than ${pid}; omit pid`,
  )
}

async function look(
  monitor: Monitor,
  pid: number,
  { rules, launcher }: AttachOptions,
): Promise<Omit<AttachedVm, "controlSocket" | "process" | "user">> {
  const [standstill, migration, memory, cpus, disks] = await Promise.all([
    standstillOf(monitor),
    queryMigration(monitor),
    monitor.execute<{ "base-memory": number; "plugged-memory"?: number }>("query-memory-size-summary"),
    monitor.execute<unknown[]>("query-cpus-fast"),
    readAttachedDisks(monitor, pid, rules),
  ])
  const memoryBytes = memory["base-memory"] + (memory["plugged-memory"] ?? 0)
  const facts = {
    standstill,
    blocked: migration["blocked-reasons"] ?? [],
    hypervisorVersion: monitor.version,
    memoryMib: Math.ceil(memoryBytes / 1024 ** 2),
    vcpus: cpus.length,
    diskBytesMax: disks.reduce((sum, disk) => sum + (disk.readonly ? 0 : disk.virtualSize), 0),
  }
  assertInRange({ ...facts, memoryBytes })
  const launch = await launchForm(monitor, pid, { rules, launcher })
  if (!launch.restorable) return { ...facts, launch }
  const { config } = launch
  const asRunning =
    config.memoryMib * 1024 ** 2 === memoryBytes &&
    config.vcpus === cpus.length &&
    config.disks.length === disks.length &&
    config.disks.every(({ path, readonly }) =>
      disks.some((disk) => disk.path === path && disk.readonly === readonly),
    )
  if (asRunning) return { ...facts, launch }
  return { ...facts, launch: { restorable: false, option: "hot-plugged memory, processors or disks" } }
}

/** The program on the socket is not trusted: its figures must lie within the limits of a caller's. */
function assertInRange({
  memoryMib,
  vcpus,
  memoryBytes,
}: {
  memoryMib: number
  vcpus: number
  memoryBytes: number
}): void {
  if (!Number.isSafeInteger(memoryBytes)) throw oddFigure(`${memoryBytes} bytes of memory`)
  checkSize({ memoryMib, vcpus })
}
