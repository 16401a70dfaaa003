import { errorCodes, type ErrorCode } from "@stillframe/domain/errors"
import { instanceStates } from "@stillframe/domain/instance"
import { z } from "zod"

const host = z.object({
  name: z.string(),
  pool: z.string().meta({ description: "its storage pool" }),
  up: z.boolean().meta({ description: "whether it was heard of in the last 15 s" }),
  heartbeat_at: z.iso.datetime().meta({ description: "when it was last heard of" }),
  hypervisors: z.record(z.string(), z.string()).meta({ description: "versions, by hypervisor" }),
  problems: z.array(
    z.object({
      code: z.enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]]),
      message: z.string().meta({ description: "why, and what to do" }),
    }),
  ),
  instance_count: z.int().min(0),
})

const leaves = z.object({
  instances: z
    .array(z.object({ id: z.string(), name: z.string(), state: z.enum(instanceStates) }))
    .meta({ description: "they are deleted when the host is forgotten; `state` is the last one known" }),
  captures: z.int().min(0).meta({ description: "snapshots that the host is still to capture; they fail" }),
  snapshots: z.int().min(0).meta({
    description: "snapshots in its pool; 0 where another host has that pool. They stay in the list",
  }),
  stored_bytes: z.int().min(0).meta({ description: "of those snapshots, on disk" }),
})

export type HostResource = z.output<typeof host>
export const hostSchema = host.meta({ id: "Host" })
export const hostWithLeavesSchema = host
  .extend({ leaves: leaves.meta({ description: "all that only this host has" }) })
  .meta({ id: "HostWithLeaves" })
export const forgottenHostSchema = leaves.meta({ id: "ForgottenHost", description: "All that the host had" })
