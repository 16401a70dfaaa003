import { cloudHypervisors, realCloudHypervisors } from "./cloud-hypervisor.ts"
import { firecrackers, realFirecrackers } from "./firecracker.ts"
import { qemus } from "./qemu.ts"
import type { Subject } from "./subject.ts"
import { vzSubject } from "./vz.ts"

const [qemu, ...otherQemus] = await qemus()
const real = [qemu, ...realCloudHypervisors, ...realFirecrackers]

/** Each version in which a hypervisor differs to us. */
export const everyVersion: readonly Subject[] = [
  ...real,
  ...otherQemus,
  ...cloudHypervisors,
  ...firecrackers,
  vzSubject,
]

/** One of each that speaks in its own way, and all that are named as real. */
export const everyHypervisor: readonly Subject[] = [
  ...real,
  ...cloudHypervisors.slice(0, 1),
  ...firecrackers.slice(0, 1),
  vzSubject,
]
