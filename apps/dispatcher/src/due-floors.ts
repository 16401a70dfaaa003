import type { DueFloors } from "@stillframe/db/webhooks/deliveries"

/** A delivery that was committed too late for a floor waits at most this long. */
const keptMs = 1_000

export interface FloorKeeper {
  /** For the next turn; now and then none. */
  current(): DueFloors
  /** Takes the result of that turn. */
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
