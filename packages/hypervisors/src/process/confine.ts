import { StillframeError } from "@stillframe/domain/errors"
import { runProgram } from "./run-program.ts"
import type { VmUser } from "./vm-users.ts"

/** A program to be spawned, with the options of `spawn` that say as whom. */
export interface Confined {
  readonly program: string
  readonly args: readonly string[]
  readonly user: { readonly uid?: number; readonly gid?: number }
}

/**
 * The namespaces of a VM's process. It needs no network, because no guest has a network card; a VM that gets
 * one must keep the host's. Mounts and unmounts of the host reach the process, so it keeps no disk busy. It
 * has no process namespace: a hypervisor would be the first process there, which ignores a SIGTERM without a
 * handler, and a parent would stand between it and us.
 */
const namespaces = ["--mount", "--propagation", "slave", "--ipc", "--uts", "--net"]

/**
 * Mounts a `/proc` that shows no process of another user. Kernels before Linux 5.8 refuse the word
 * `invisible`, and take the number without hiding anything.
 */
const script = `mount -n -t proc -o nosuid,nodev,noexec,hidepid=2 proc /proc && exec setpriv "$@"`

/**
 * Takes all rights away, and those that an executed program could give, such as a program that another VM
 * left with the set-user-ID bit.
 */
const setpriv = ["--clear-groups", "--no-new-privs", "--inh-caps", "-all", "--bounding-set", "-all"]

/** How the shell and `setpriv` end when a program can't be executed. */
export const notExecutedStatus: ReadonlySet<number> = new Set([126, 127])

/**
 * How a hypervisor is started as its VM's user: by programs of util-linux that replace each other, so the
 * process keeps its id, its parent and its start time, and has the hypervisor's arguments and environment
 * from its first moment.
 */
export function confine(program: string, args: readonly string[], user: VmUser | undefined): Confined {
  if (user?.confined !== true)
    return { program, args, user: user === undefined ? {} : { uid: user.uid, gid: user.gid } }
  const as = ["--reuid", String(user.uid), "--regid", String(user.gid)]
  return {
    program: "unshare",
    args: [...namespaces, "--", "/bin/sh", "-c", script, "sh", ...setpriv, ...as, "--", program, ...args],
    user: {},
  }
}

/**
 * Why VMs can't be confined here; undefined where they can. A container needs CAP_SYS_ADMIN and CAP_SETPCAP
 * for it, and util-linux.
 */
export async function obstacleToConfine(user: VmUser, signal: AbortSignal): Promise<string | undefined> {
  const { program, args } = confine("/bin/true", [], { ...user, confined: true })
  return await runProgram(program, args, { signal }).then(
    () => undefined,
    (error: unknown) => {
      if (!(error instanceof StillframeError) || error.code === "cancelled") throw error
      return error.said ?? error.message
    },
  )
}
