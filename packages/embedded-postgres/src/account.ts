import { execFile } from "node:child_process"
import { promisify } from "node:util"
import { childEnv } from "@stillframe/domain/child-env"

const run = promisify(execFile)

/** Linux's id of `nobody`, the same in every distribution. */
export const NOBODY = 65534

/** Postgres refuses to run as uid 0. `words` go in front of its command line. */
export interface Account {
  /** `nobody`: a real other user, who can reach neither root's home nor a checkout in it. */
  readonly kind: "self" | "namespace" | "nobody"
  readonly words: readonly string[]
}

/**
 * How to run Postgres here: as ourselves, or as root in a user namespace where root's files stay reachable,
 * or (where namespaces are refused, as in a container with default settings) as `nobody`. `asNobody`: the
 * data already belong to `nobody`.
 */
export async function chooseAccount(asNobody: boolean): Promise<Account> {
  // The kernel itself ends Postgres with its parent, also when that one is killed outright.
  const withParent = ["setpriv", "--pdeathsig", "INT"]
  if (process.getuid?.() !== 0) {
    return { kind: "self", words: (await works([...withParent, "true"])) ? withParent : [] }
  }
  const inNamespace = ["unshare", "--user", `--map-user=${NOBODY}`, `--map-group=${NOBODY}`]
  if (!asNobody && (await works([...inNamespace, "true"]))) {
    return { kind: "namespace", words: [...inNamespace, ...withParent] }
  }
  const ids = [`--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups"]
  // Two steps: the kernel forgets the wish to end with the parent when the user changes after it.
  return { kind: "nobody", words: ["setpriv", ...ids, ...withParent] }
}

async function works([command = "", ...args]: readonly string[]): Promise<boolean> {
  try {
    await run(command, args, { env: childEnv() })
    return true
  } catch {
    // Not there, or refused by the kernel: the answer is the same.
    return false
  }
}
