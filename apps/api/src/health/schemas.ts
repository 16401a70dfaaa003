import { algorithms } from "@stillframe/domain/compression"
import { z } from "zod"
import { errorCode, errorSchema } from "../openapi/resources.ts"

export const healthSchema = z
  .object({ status: z.literal("ok").describe("Always `ok`.") })
  .meta({ id: "Health", description: "The API answers." })
const readyProblem = z.object({
  where: z
    .string()
    .describe("The part that has the problem: `host <name>`, `pool <name>`, `database`, `queue` or `api`."),
  code: errorCode,
  message: z.string().describe("The reason, and what you can do."),
})

const ready = z.object({
  status: z
    .enum(["ok", "degraded", "unavailable"])
    .describe("`degraded`: a host, a pool or the queue has a problem. `unavailable`: no work can be done."),
  problems: z.array(readyProblem).describe("The problems that are known. Empty when there are none."),
  hosts: z
    .array(
      z.object({
        name: z.string().describe("The name of the host."),
        hypervisors: z.record(z.string(), z.string()).describe("The versions of its hypervisors, by name."),
      }),
    )
    .describe("The hosts that are up."),
  compression_workers: z
    .array(
      z.object({
        name: z.string().describe("The name of the worker."),
        pool: z.string().describe("The storage pool that it serves."),
        codecs: z.record(z.enum(algorithms), z.string()).describe("The implementation of each algorithm."),
      }),
    )
    .describe("The compression-workers that are up."),
})
export const readySchema = ready.meta({
  id: "Ready",
  description: "The state of the installation, and the hosts and workers that are up.",
})
export const notReadySchema = errorSchema
  .extend(ready.shape)
  .meta({ id: "NotReady", description: "The reasons why no work can be done." })
