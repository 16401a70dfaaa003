import type { VmControl, VmState } from "../file-vmm/vm-control.ts"
import type { Standstill, Watch } from "../watch.ts"
import type { ProcessIdentity } from "./processes.ts"
import { watchPid } from "./watch-pid.ts"

/**
 * Watches a VM by its process: its VMM has no word for how it ended, and tells its state only when it is
 * asked.
 */
export function watchProcess(process: ProcessIdentity, control: VmControl): Watch {
  const stop = new AbortController()
  const ended = async (): Promise<"gone"> => {
    try {
      await watchPid(process, stop.signal)
      return "gone"
    } catch {
      // A closed watch reports nothing.
      return never
    }
  }
  return {
    ended: ended(),
    look: async () => standstills[await control.state()],
    // It never stops a VM by itself.
    resume: async () => {},
    close: () => stop.abort(),
  }
}

const standstills: Readonly<Record<VmState, Standstill | undefined>> = {
  running: undefined,
  paused: {
    status: "paused",
    reason: "the VM was paused by another program than this service; resume it by that program",
    endsWithWrites: false,
  },
  other: {
    status: "other",
    reason:
      "the VM's process is there, and its guest neither runs nor is paused; stop the instance and start it again",
    endsWithWrites: false,
  },
}

const never = new Promise<never>(() => {})
