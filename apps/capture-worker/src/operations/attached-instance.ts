import type { InstanceRow } from "@stillframe/db/instances/instances"
import type { AttachedInstance, AttachRequest } from "../executor/attached-instance.ts"

/** Undefined for a VM of ours, and for one that is still to be found. */
export function attachedInstance({ attached }: Pick<InstanceRow, "attached">): AttachedInstance | undefined {
  return attached !== null && "process" in attached ? (attached as unknown as AttachedInstance) : undefined
}

export function attachRequest({ attached }: Pick<InstanceRow, "attached">): AttachRequest | undefined {
  return attached === null ? undefined : (attached as unknown as AttachRequest)
}
