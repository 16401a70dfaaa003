import { readFileSync } from "node:fs"
import { SettingsError } from "@stillframe/runtime/env"

/**
 * The capabilities that a worker which is root cannot do without, by their bits (capabilities(7)), and what
 * for.
 */
const needed = [
  { name: "CHOWN", bit: 0, use: "give the files of a VM to its user" },
  { name: "DAC_OVERRIDE", bit: 1, use: "read and write the files of its VMs" },
  { name: "FOWNER", bit: 3, use: "make the files that a VM's user wrote read-only" },
  { name: "KILL", bit: 5, use: "end its VMs" },
  { name: "SETGID", bit: 6, use: "start each VM as a user of its own" },
  { name: "SETUID", bit: 7, use: "start each VM as a user of its own" },
  // Without it a VM that runs looks like one that has ended: /proc hides the environment, directory and files
  // of its process.
  { name: "SYS_PTRACE", bit: 19, use: "see which processes are its VMs, and which files they have open" },
] as const

/** Those that a process does not have, by its /proc/<pid>/status. */
export function missingRights(status: string): readonly (typeof needed)[number][] {
  const effective = BigInt(`0x${/^CapEff:\s+([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`)
  return needed.filter(({ bit }) => ((effective >> BigInt(bit)) & 1n) === 0n)
}

/**
 * Throws a `SettingsError` with each capability that this process needs and does not have. Without root it
 * needs none.
 */
export function assertRights(): void {
  if (process.getuid?.() !== 0 || process.platform !== "linux") return
  const missing = missingRights(readFileSync("/proc/self/status", "latin1"))
  if (missing.length === 0) return
  throw new SettingsError(
    missing.map(({ name, use }) => ({
      name: `CAP_${name}`,
      message: `the capture-worker is root and needs this capability to ${use}; add it (cap_add: [${name}] in a compose file, --cap-add ${name} of docker run), or run the worker as another user`,
    })),
  )
}
