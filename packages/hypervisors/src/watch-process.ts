import type { ProcessIdentity } from "./processes.ts"
import { watchPid } from "./watch-pid.ts"
import type { Watch } from "./watch.ts"

/** Watches a VM by its process alone: its VMM has no word for how it ended. */
export function watchProcess(process: ProcessIdentity): Watch {
  const stop = new AbortController()
  const ended = async (): Promise<"gone"> => {
    try {
      await watchPid(process, stop.signal)
      return "gone"
    } catch {
      // Of a watch that was closed nobody hears any more.
      return never
    }
  }
  return { ended: ended(), close: () => stop.abort() }
}

const never = new Promise<never>(() => {})
