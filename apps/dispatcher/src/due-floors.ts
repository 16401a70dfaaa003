import type { DueFloors } from "@stillframe/db/webhooks/deliveries"

/** What was committed too late to be seen below a floor waits this long at most. */
const keptMs = 1_000

export interface FloorKeeper {
  /** For the next turn; now and then none. */
  current(): DueFloors
  /** What that turn found. */
  raise(floors: DueFloors): void
}

export function keepFloors(): FloorKeeper {
  let kept: DueFloors = {}
  let until = 0
  return {
    current() {
      if (performance.now() >= until) {
        kept = {}
        until = performance.now() + keptMs
      }
      return kept
    },
    raise(floors) {
      kept = { ...kept, ...floors }
    },
  }
}
