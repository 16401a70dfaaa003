import { describe } from "vitest"
import { capturing } from "./contract/capturing.ts"
import { atRest } from "./contract/disks-at-rest.ts"
import { ending } from "./contract/ending.ts"
import { launching } from "./contract/launching.ts"
import { restoring } from "./contract/restoring.ts"
import type { Subject } from "./subjects/subject.ts"

/** What every hypervisor must do for a captor, real or a stand-in. */
export function hypervisorContract(subject: Subject): void {
  describe(`on ${subject.title}`, () => {
    launching(subject)
    capturing(subject)
    restoring(subject)
    atRest(subject)
    ending(subject)
  })
}
