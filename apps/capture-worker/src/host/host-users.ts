import { StillframeError } from "@stillframe/domain/errors"
import { obstacleToConfine } from "@stillframe/hypervisors/process/confine"
import { runProgram } from "@stillframe/hypervisors/process/run-program"
import type { Logger } from "@stillframe/runtime/logger"
import type { CaptureWorkerConfig } from "../config.ts"
import { accountIn, type UidRange } from "./vm-uid-setting.ts"

/** The users of a host's VMs, and the rights that they have. */
export interface HostUsers {
  readonly range: UidRange
  /** True where VMs get namespaces of their own. */
  readonly confined: boolean
}

/** Directories of accounts may be far away, and are asked on top of the files. */
const getentMs = 2_000

/**
 * The users that VMs of this host run as; undefined where this process is not root, and they run as its own
 * user. Throws `invalid_request` where an account of the machine has one of them.
 */
export async function openHostUsers(
  { vmUids }: Pick<CaptureWorkerConfig, "vmUids">,
  log: Logger,
): Promise<HostUsers | undefined> {
  if (process.getuid?.() !== 0) return undefined
  await assertUnknown(vmUids)
  return { range: vmUids, confined: await canConfine(trialUid(vmUids), log) }
}

/** The setting was checked against the files; accounts may come from elsewhere too, by nsswitch.conf(5). */
async function assertUnknown(range: UidRange): Promise<void> {
  for (const kind of ["passwd", "group"]) {
    const found = accountIn(await getent(kind), range)
    if (found !== undefined)
      throw new StillframeError(
        "invalid_request",
        `VM_UID_RANGE: holds ${found} of "getent ${kind}"; name a range that nothing else on this machine uses`,
      )
  }
}

/**
 * Empty where there is no such program, or it does not list all accounts: then the files are all that is
 * known.
 */
async function getent(kind: string): Promise<string> {
  return await runProgram("getent", [kind], { signal: AbortSignal.timeout(getentMs) }).catch(() => "")
}

/**
 * The user that trials of this host run as, whose guests are ours: no VM gets it, so it is there when all
 * others are taken.
 */
export function trialUid({ first }: UidRange): number {
  return first
}

async function canConfine(uid: number, log: Logger): Promise<boolean> {
  const reason = await obstacleToConfine({ uid, gid: uid }, new AbortController().signal)
  if (reason === undefined) return true
  log.warn(
    { reason },
    "VMs run without namespaces of their own, and see the machine's processes and networks: this process needs CAP_SYS_ADMIN and CAP_SETPCAP, and the programs unshare, mount and setpriv of util-linux",
  )
  return false
}
