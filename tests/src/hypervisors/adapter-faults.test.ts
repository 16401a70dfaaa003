import { adapterFaults } from "./adapter-faults.ts"
import { everyHypervisor } from "./subjects/all.ts"

console.info(`faults: ${everyHypervisor.map(({ title }) => title).join(", ")}`)

for (const subject of everyHypervisor) adapterFaults(subject)
