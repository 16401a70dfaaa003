import { scratch } from "../scratch.ts"
import { benchLatency } from "./latency.ts"
import { benchRates } from "./rate.ts"
import { startSides } from "./sides.ts"

/** The dispatcher against a bare loop that POSTs. */
export async function benchWebhooks(): Promise<void> {
  using place = scratch("webhooks")
  await using resources = new AsyncDisposableStack()
  const sides = await startSides(resources, place.dir)
  await benchLatency(sides)
  await benchRates(sides, resources)
}
