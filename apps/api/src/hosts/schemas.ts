import { errorCodes, type ErrorCode } from "@stillframe/domain/errors"
import { instanceStates } from "@stillframe/domain/instance"
import { z } from "zod"

const host = z.object({
  name: z.string().describe("The name of the host."),
  pool: z.string().meta({ description: "The storage pool of the host." }),
  up: z.boolean().meta({ description: "True if the host was heard of in the last 15 s." }),
  heartbeat_at: z.iso.datetime().meta({ description: "When the host was last heard of." }),
  hypervisors: z
    .record(z.string(), z.string())
    .meta({ description: "The versions of its hypervisors, by name." }),
  problems: z
    .array(
      z.object({
        code: z
          .enum(Object.keys(errorCodes) as [ErrorCode, ...ErrorCode[]])
          .describe("A code that programs can rely on."),
        message: z.string().describe("The reason, and what you can do."),
      }),
    )
    .describe("The problems that the host has reported. Empty when there are none."),
  instance_count: z.int().min(0).describe("The number of instances on the host."),
})

const leaves = z.object({
  instances: z
    .array(
      z.object({
        id: z.string().describe("The id of the instance."),
        name: z.string().describe("The name of the instance."),
        state: z.enum(instanceStates).describe("The last state that is known."),
        may_use_overlays: z.literal(true).optional().meta({
          description:
            "Present for an attached VM that may write to overlays of a capture that was cut off, beside its disks. Only the host knows.",
        }),
      }),
    )
    .meta({ description: "The instances of the host, which are deleted with it." }),
  captures: z
    .int()
    .min(0)
    .meta({ description: "The number of snapshots that the host has not captured yet. They fail." }),
  snapshots: z.int().min(0).meta({
    description:
      "The number of snapshots in its pool, which stay in the list. 0 when another host has that pool.",
  }),
  stored_bytes: z
    .int()
    .min(0)
    .meta({ description: "The space that those snapshots take on disk, in bytes." }),
})

export type HostResource = z.output<typeof host>
export const hostSchema = host.meta({ id: "Host", description: "A machine that runs VMs." })
export const hostWithLeavesSchema = host
  .extend({ leaves: leaves.meta({ description: "All that would be lost with the host." }) })
  .meta({ id: "HostWithLeaves", description: "A host, with what would be lost with it." })
export const forgottenHostSchema = leaves.meta({ id: "ForgottenHost", description: "All that the host had." })
