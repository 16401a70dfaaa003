import { benchApi } from "./api/api.ts"
import { benchCompression } from "./compression/compression.ts"
import { machineLine, thisMachine } from "./machine.ts"
import { benchBacklog } from "./pipeline/backlog.ts"
import { benchEndToEnd } from "./pipeline/end-to-end.ts"
import { benchLive } from "./pipeline/live.ts"
import { benchPause } from "./pipeline/pause.ts"
import { benchRecovery } from "./pipeline/recovery.ts"
import { benchWebhooks } from "./webhooks/webhooks.ts"

const machine = await thisMachine()
const benches = new Map([
  ["end-to-end", () => benchEndToEnd(machine)],
  ["pause", () => benchPause(machine)],
  ["capture", () => benchLive(machine)],
  ["recovery", () => benchRecovery(machine)],
  ["backlog", () => benchBacklog(machine)],
  ["compression", () => benchCompression(machine)],
  ["api", benchApi],
  ["webhooks", benchWebhooks],
])

const names = process.argv.slice(2)
const unknown = names.filter((name) => !benches.has(name))
if (unknown.length > 0) {
  console.error(`no measurement is called ${unknown.join(", ")}; there are ${[...benches.keys()].join(", ")}`)
  process.exit(2)
}
// Through "exit", where each measurement's folder and VMs are cleared away.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1))
console.log(machineLine(machine))
for (const [name, bench] of benches) if (names.length === 0 || names.includes(name)) await bench()
