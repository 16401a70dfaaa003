import type { Monitor } from "../monitor/qmp.ts"

/** The number of the overlay that each writable disk runs on. */
export async function activeOverlays(monitor: Monitor): Promise<Map<number, number>> {
  const blocks = await monitor.execute<{ inserted?: { "node-name"?: string } }[]>("query-block")
  const active = new Map<number, number>()
  for (const { inserted } of blocks) {
    const match = /^disk(\d+)-(\d+)$/.exec(inserted?.["node-name"] ?? "")
    if (match !== null) active.set(Number(match[1]), Number(match[2]))
  }
  return active
}
