import { scratch } from "./scratch.ts"
import { benchLatency } from "./webhooks-latency.ts"
import { benchRates } from "./webhooks-rate.ts"
import { startSides } from "./webhooks-sides.ts"

/** The dispatcher against a bare loop that POSTs. */
export async function benchWebhooks(): Promise<void> {
  using place = scratch("webhooks")
  await using resources = new AsyncDisposableStack()
  const sides = await startSides(resources, place.dir)
  await benchLatency(sides)
  await benchRates(sides, resources)
}
