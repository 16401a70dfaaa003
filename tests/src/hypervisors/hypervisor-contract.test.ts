import { hypervisorContract } from "./hypervisor-contract.ts"
import { everyVersion } from "./subjects/all.ts"

console.info(`contract: ${everyVersion.map(({ title }) => title).join(", ")}`)

for (const subject of everyVersion) hypervisorContract(subject)
